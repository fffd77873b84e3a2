"""Hybrid CNN/Transformer backbones for detection and segmentation in OpenMMLab, at any input resolution.

Importing the package patches what OpenMMLab needs on current PyTorch (`hybrid_backbones.compat`) and registers
everything with MMEngine's root registries, as soon as these exist: at once where MMEngine is already imported, else
when it is. It imports neither torch, mmdet, mmseg nor timm itself, and prints nothing.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if sys.version_info < (3, 10):  # noqa: UP036  (a checkout on the path was not installed by pip)
    raise ImportError(
        f'hybrid_backbones needs Python 3.10 or newer, and {sys.executable} is {sys.version.split()[0]}; make an '
        'environment of a newer one: python3.12 -m venv .venv && .venv/bin/pip install hybrid_backbones'
    )

from . import compat

if TYPE_CHECKING:
    from .backbones.factory import create_backbone, create_classifier, list_backbones

__version__ = '0.1.0'
__all__ = ['__version__', 'create_backbone', 'create_classifier', 'list_backbones']


def _register(mmengine: ModuleType) -> None:
    for package in ('backbones', 'datasets', 'engine'):
        importlib.import_module(f'{__name__}.{package}')


compat.install()
compat.import_hooks.after('mmengine', _register)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(f'{__name__}.backbones.factory'), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
