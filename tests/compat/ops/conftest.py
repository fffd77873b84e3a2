"""The operators' tests call `mmcv.ops`, on the stand-in even where compiled mmcv is installed."""

import sys

import mmcv.ops  # noqa: F401
import pytest
import torch

from hybrid_backbones.compat.ops import make_module


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    """`mmcv.ops` on a fresh stand-in, which is returned."""
    module = make_module()
    for name, python in list(sys.modules.items()):
        if name.startswith('mmcv.ops.') and hasattr(python, 'ext_module'):
            monkeypatch.setattr(python, 'ext_module', module)
    return module


@pytest.fixture(params=['cpu', *([pytest.param('cuda', marks=pytest.mark.gpu)] if torch.cuda.is_available() else [])])
def device(request):
    return request.param
