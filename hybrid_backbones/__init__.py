"""Hybrid CNN/Transformer backbones for detection and segmentation in OpenMMLab, at any input resolution.

Importing the package registers everything with MMEngine's root registries and mends what OpenMMLab needs on today's
PyTorch (`hybrid_backbones.compat`). It imports neither mmdet, mmseg nor timm, and prints nothing.
"""

import sys

from . import compat

compat.install()

# `python -m hybrid_backbones.doctor` runs where these fail to import, and says why. (compat comes first: they import
# MMEngine.)
if 'hybrid_backbones.doctor' not in sys.orig_argv:
    from . import backbones, engine
    from .registry import create_backbone, create_classifier, list_backbones

__version__ = '0.1.0'
__all__ = ['__version__', 'backbones', 'compat', 'create_backbone', 'create_classifier', 'engine', 'list_backbones']
