"""The stand-in as a module: what mmcv asks of it at import, and what a user sees of an operator that it lacks."""

import inspect

import mmcv.ops
import pytest
import torch
from mmcv.utils import ext_loader

from hybrid_backbones.compat.ops import MissingOperatorError


def test_every_name_that_mmcv_may_ask_for_exists(stand_in):
    assert stand_in.__name__ == 'mmcv._ext'
    assert callable(stand_in.carafe_forward) and callable(stand_in.an_operator_of_tomorrow)


def test_protocol_names_are_not_answered(stand_in):
    """`inspect`, `copy` and the import system probe modules for such names and would believe a function."""
    assert not hasattr(stand_in, '__path__')
    assert not hasattr(stand_in, '_private')
    assert inspect.getdoc(stand_in)


def test_missing_operator_is_named_with_the_way_to_get_it():
    features = torch.rand(1, 4, 6, 6)
    with pytest.raises(MissingOperatorError, match=r"'carafe_naive_forward'.*Install the package mmcv"):
        mmcv.ops.carafe_naive(features, torch.rand(1, 9, 12, 12), 3, 1, 2)


def test_missing_operator_is_a_not_implemented_error():
    assert issubclass(MissingOperatorError, NotImplementedError)


def test_environment_report():
    """mmcv's `collect_env`, which every training run logs, calls these two."""
    assert 'torchvision' in mmcv.ops.get_compiler_version()
    assert isinstance(mmcv.ops.get_compiling_cuda_version(), str)


def test_loading_by_mmcv_itself():
    assert ext_loader.load_ext('_ext', ['nms', 'psamask_forward'])
