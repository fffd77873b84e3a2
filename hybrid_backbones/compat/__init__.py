"""OpenMMLab on current PyTorch and NumPy, without a compiler.

Each patch is one file, acts only where it is needed and when the module that it patches is imported, and says in the
log of the run what it did. docs/install.md lists them. With `HYBRID_BACKBONES_COMPAT=0` in the environment nothing is
patched: MMEngine, mmcv, mmdet and mmseg stay as they are installed.
"""

import os

from . import (
    amp,
    annotation_files,
    checkpoints,
    distributed,
    import_hooks,
    log,
    mmcv_ext,
    numpy_names,
    packages,
    pipelines,
    text,
    versions,
)
from .log import applied, log_patch

__all__ = ['applied', 'enabled', 'install', 'log_patch']

SWITCH = 'HYBRID_BACKBONES_COMPAT'
PATCHES = (
    log,
    mmcv_ext,
    checkpoints,
    packages,
    versions,
    text,
    amp,
    distributed,
    annotation_files,
    pipelines,
    numpy_names,
)


def enabled() -> bool:
    """Whether OpenMMLab is patched.

    Raises:
        ValueError: The switch is neither 0 nor 1.
    """
    value = os.environ.get(SWITCH, '1')
    if value not in ('0', '1'):
        raise ValueError(f'{SWITCH}={value!r}: expected 1, which patches what this machine needs, or 0, which does not')
    return value == '1'


def install() -> None:
    """Patch what this machine needs; does nothing where nothing is broken, and nothing the second time."""
    if import_hooks.install() and enabled():
        for patch in PATCHES:
            patch.install()
