"""Settings for GPUs; tests/null_cuda has what they set."""

import pytest
import torch

from hybrid_backbones.engine.cuda import prepare_cuda


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="fp32='exact': expected 'tf32' or 'strict'"):
        prepare_cuda('exact')


@pytest.mark.skipif(torch.cuda.is_available(), reason='needs a machine without GPU')
def test_nothing_is_set_without_a_gpu():
    before = torch.get_float32_matmul_precision(), torch.backends.cuda.cudnn_sdp_enabled()
    prepare_cuda()
    assert (torch.get_float32_matmul_precision(), torch.backends.cuda.cudnn_sdp_enabled()) == before
