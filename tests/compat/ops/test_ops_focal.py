"""Focal losses against their definition and by gradcheck: compiled mmcv has them on GPUs only."""

import mmcv.ops
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

GAMMA, ALPHA, CLASSES = 1.7, 0.3, 5


def sigmoid_by_definition(logits, target, weight=None):
    hot = F.one_hot(target, CLASSES + 1)[:, :CLASSES]
    p = logits.sigmoid()
    p_t, alpha_t = torch.where(hot == 1, p, 1 - p), torch.where(hot == 1, ALPHA, 1 - ALPHA)
    loss = -alpha_t * (1 - p_t) ** GAMMA * p_t.log()
    return loss if weight is None else loss * weight[target][:, None]


def softmax_by_definition(logits, target, weight=None):
    p = logits.softmax(1)[torch.arange(len(logits)), target]
    loss = -ALPHA * (1 - p) ** GAMMA * p.log()
    return loss if weight is None else loss * weight[target]


LOSSES = {
    'sigmoid': (mmcv.ops.sigmoid_focal_loss, sigmoid_by_definition),
    'softmax': (mmcv.ops.softmax_focal_loss, softmax_by_definition),
}


@pytest.fixture(params=LOSSES)
def loss_and_definition(request):
    return LOSSES[request.param]


@pytest.mark.parametrize('weighted', [False, True])
def test_definition(loss_and_definition, weighted, device):
    loss, definition = loss_and_definition
    logits = torch.randn(9, CLASSES, dtype=torch.float64, device=device) * 3
    target = torch.arange(9, device=device) % CLASSES
    weight = torch.rand(CLASSES, dtype=torch.float64, device=device) if weighted else None
    expected = definition(logits, target, weight)
    torch.testing.assert_close(loss(logits, target, GAMMA, ALPHA, weight, 'none'), expected)
    torch.testing.assert_close(loss(logits, target, GAMMA, ALPHA, weight, 'sum'), expected.sum())
    torch.testing.assert_close(loss(logits, target, GAMMA, ALPHA, weight, 'mean'), expected.sum() / 9)


@pytest.mark.parametrize('gamma', [0.0, 1.0, 2.0])
@pytest.mark.parametrize('weighted', [False, True])
def test_gradient(loss_and_definition, gamma, weighted, device):
    logits = torch.randn(7, CLASSES, dtype=torch.float64, device=device, requires_grad=True)
    target = torch.arange(7, device=device) % CLASSES
    weight = torch.rand(CLASSES, dtype=torch.float64, device=device) if weighted else None
    assert gradcheck(lambda x: loss_and_definition[0](x, target, gamma, ALPHA, weight, 'sum'), logits)


def test_background_is_negative_for_every_class():
    """mmdet numbers the background after the last class."""
    logits, target = torch.randn(4, CLASSES, requires_grad=True), torch.full((4,), CLASSES)
    loss = mmcv.ops.sigmoid_focal_loss(logits, target, GAMMA, ALPHA, None, 'none')
    torch.testing.assert_close(loss, sigmoid_by_definition(logits, target))
    weighted = mmcv.ops.sigmoid_focal_loss(logits, target, GAMMA, ALPHA, torch.rand(CLASSES), 'none')
    assert torch.equal(weighted, loss)


def test_ignored_targets_have_no_softmax_loss():
    logits = torch.randn(4, CLASSES, requires_grad=True)
    target = torch.tensor([0, -1, 2, -1])
    loss = mmcv.ops.softmax_focal_loss(logits, target, GAMMA, ALPHA, torch.rand(CLASSES), 'none')
    assert loss[1] == loss[3] == 0
    loss = mmcv.ops.softmax_focal_loss(logits, target, GAMMA, ALPHA, None, 'sum')
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient[target < 0].any() and gradient[target >= 0].any()


def test_confident_mistakes_cost_what_the_definition_says():
    """In float32 the probability of a logit of 25 is 1; its complement must not become 0 before the logarithm."""
    logits = torch.tensor([[25.0, -25.0, 0, 0, 0]], requires_grad=True)
    loss = mmcv.ops.sigmoid_focal_loss(logits, torch.tensor([1]), GAMMA, ALPHA, None, 'none')
    expected = sigmoid_by_definition(logits.detach().double(), torch.tensor([1]))
    torch.testing.assert_close(loss[0, :2].double(), expected[0, :2], rtol=1e-4, atol=0)
    loss.sum().backward()
    torch.testing.assert_close(logits.grad[0, :2], torch.tensor([1 - ALPHA, -ALPHA]))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision(loss_and_definition, dtype):
    logits = torch.randn(6, CLASSES).to(dtype).requires_grad_()
    target = torch.arange(6) % CLASSES
    loss = loss_and_definition[0](logits, target, GAMMA, ALPHA, None, 'none')
    assert loss.dtype == dtype
    expected = loss_and_definition[0](logits.float(), target, GAMMA, ALPHA, None, 'none')
    torch.testing.assert_close(loss.float(), expected, rtol=0.05, atol=0.02)
    # By sum: mmcv's softmax form cannot go back from `none`.
    loss_and_definition[0](logits, target, GAMMA, ALPHA, None, 'sum').backward()
    assert logits.grad.dtype == dtype and logits.grad.isfinite().all()


def test_no_samples(loss_and_definition):
    logits = torch.zeros(0, CLASSES, requires_grad=True)
    loss = loss_and_definition[0](logits, torch.zeros(0, dtype=torch.long), GAMMA, ALPHA, None, 'sum')
    loss.backward()
    assert loss == 0 and logits.grad.shape == (0, CLASSES)
