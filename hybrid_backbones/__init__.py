"""Hybrid CNN/Transformer backbones for detection and segmentation in OpenMMLab, at any input resolution.

Importing the package registers everything with MMEngine's root registries and mends what OpenMMLab needs on today's
PyTorch (`hybrid_backbones.compat`). It imports neither mmdet, mmseg nor timm, and prints nothing.
"""

from . import compat

compat.install()

from . import backbones, engine  # noqa: E402  (compat comes first: these import MMEngine)
from .registry import create_backbone, list_backbones  # noqa: E402

__version__ = '0.1.0'
__all__ = ['__version__', 'backbones', 'compat', 'create_backbone', 'engine', 'list_backbones']
