"""mmcv's synchronized batch normalization, in one process: batch normalization."""

import pytest
import torch
import torch.nn.functional as F
from mmcv.ops.sync_bn import SyncBatchNormFunction


@pytest.mark.parametrize('stats_mode', ['default', 'N'])
def test_equals_batch_norm(stats_mode, device):
    x, weight, bias = (torch.rand(*shape, device=device, requires_grad=True) for shape in ((4, 3, 5, 6), (3,), (3,)))
    statistics = torch.rand(2, 3, device=device)
    expected_statistics = statistics.clone()
    output = SyncBatchNormFunction.apply(x, *statistics, weight, bias, 0.3, 1e-5, None, 1, stats_mode)
    expected = F.batch_norm(x, *expected_statistics, weight, bias, True, 0.3, 1e-5)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(statistics, expected_statistics)
    gradient = torch.rand_like(output)
    gradients = [torch.autograd.grad(result, (x, weight, bias), gradient) for result in (output, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_half_precision(device):
    x = torch.rand(4, 3, 5, 6, device=device).half().requires_grad_()
    weight, bias, mean, var = (torch.ones(3, device=device) for _ in range(4))
    output = SyncBatchNormFunction.apply(x, mean, var, weight, bias, 0.3, 1e-5, None, 1, 'N')
    torch.testing.assert_close(
        output.float(), F.batch_norm(x.float(), None, None, training=True) + 1, rtol=0, atol=2e-3
    )
    output.sum().backward()
    assert x.grad.dtype == torch.float16


def test_empty_batches_move_no_statistics(device):
    x = torch.rand(0, 3, 5, 6, device=device, requires_grad=True)
    weight, bias, mean, var = (torch.ones(3, device=device) for _ in range(4))
    output = SyncBatchNormFunction.apply(x, mean, var, weight, bias, 0.3, 1e-5, None, 1, 'N')
    output.sum().backward()
    assert output.shape == x.shape and mean.eq(1).all() and var.eq(1).all()
