"""The stand-in as a module: what mmcv asks of it at import, and what a user sees of an operator that it lacks."""

import inspect
import sys

import mmcv.ops
import pytest
import torch
from mmcv.utils import ext_loader
from mmengine.registry import MODELS

from hybrid_backbones.compat.ops import OPERATORS, MissingOperatorError
from hybrid_backbones.compat.ops.refused import LAYERS, refuse_layers


def test_every_name_that_mmcv_may_ask_for_exists(stand_in):
    assert stand_in.__name__ == 'mmcv._ext'
    assert callable(stand_in.carafe_forward) and callable(stand_in.an_operator_of_tomorrow)


def test_protocol_names_are_not_answered(stand_in):
    """`inspect`, `copy` and the import system probe modules for such names and would believe a function."""
    assert not hasattr(stand_in, '__path__')
    assert not hasattr(stand_in, '_private')
    assert inspect.getdoc(stand_in)


def test_missing_operator_is_named_with_the_way_to_get_it():
    with pytest.raises(MissingOperatorError, match=r"'nms_rotated'.*Install the package mmcv"):
        mmcv.ops.nms_rotated(torch.rand(2, 5), torch.rand(2), 0.5)


@pytest.fixture
def refused(stand_in, monkeypatch) -> dict[str, type]:
    """The refused layers by name; restored afterwards, for machines with compiled mmcv."""
    classes = {
        layer: getattr(sys.modules[f'mmcv.ops.{file}'], name) for layer in LAYERS for file, name in [layer.split('.')]
    }
    for cls in classes.values():
        monkeypatch.setattr(cls, '__init__', cls.__init__)
    refuse_layers(stand_in)
    return classes


@pytest.mark.parametrize('layer', LAYERS)
def test_layers_without_their_operator_are_refused_when_built(refused, layer):
    assert LAYERS[layer] not in {operator.__name__ for operator in OPERATORS}
    with pytest.raises(MissingOperatorError, match=LAYERS[layer]):
        refused[layer](3, kernel_size=3)


def test_refused_layers_are_refused_by_the_registry(refused):
    with pytest.raises(MissingOperatorError, match='indice_conv_forward'):
        MODELS.build(dict(type='SubMConv2d', in_channels=3, out_channels=4, kernel_size=3))


def test_missing_operator_is_a_not_implemented_error():
    assert issubclass(MissingOperatorError, NotImplementedError)


def test_environment_report():
    """mmcv's `collect_env`, which every training run logs, calls these two."""
    assert 'torchvision' in mmcv.ops.get_compiler_version()
    assert isinstance(mmcv.ops.get_compiling_cuda_version(), str)


def test_loading_by_mmcv_itself():
    assert ext_loader.load_ext('_ext', ['nms', 'psamask_forward'])
