"""FullyShardedDataParallel for a model with one of our backbones, by name in MMEngine's configs."""

from weakref import WeakSet

from mmengine.registry import FUNCTIONS
from torch import nn

from ..backbones.pyramid import PyramidBackbone

_units: WeakSet[nn.Module] = WeakSet()


@FUNCTIONS.register_module()
def wrap_backbone_blocks(module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
    """`auto_wrap_policy` by which every block of a backbone is a unit; neck and heads are of the whole model's."""
    # PyTorch asks for a module before its children.
    if recurse and isinstance(module, PyramidBackbone):
        _units.update(module.blocks_of_trunk())
    return recurse or module in _units
