"""Where names are registered: MMEngine's root registries, so that mmdet, mmseg, mmpretrain ... all find them.
A registry of our own, out of sight of mmcv's `test_build_conv_layer`, which builds whatever the root has under a name
with "conv", would need a prefix in every config: lookups go to parents, not to children.

This module knows no family: whoever imports a family's file fills it.
"""

from collections.abc import Callable
from typing import Any, TypeVar

Class = TypeVar('Class', bound=type)

# Of every variant by name: its class, and the options that the name stands for.
VARIANTS: dict[str, tuple[type, dict[str, Any]]] = {}


def register_backbone(**names: dict[str, Any]) -> Callable[[Class], Class]:
    """Register a family with MMEngine under its class name, and its variants by name: `cvt_13=dict(arch=...)`."""

    # Not at the top: importing MMEngine registers the families, which import this module.
    from mmengine.registry import MODELS

    def register(cls: Class) -> Class:
        MODELS.register_module(module=cls)
        VARIANTS.update({name: (cls, options) for name, options in names.items()})
        return cls

    return register
