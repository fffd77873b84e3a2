"""The environment of a measurement: versions, operators, device, and the commit of the code."""

import importlib
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ..._processor import processor_name
from ...compat import applied

_PACKAGES = ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmcv-lite', 'mmdet', 'mmsegmentation', 'timm', 'numpy')


def environment(threads: int, precision: str = 'fp32') -> dict[str, Any]:
    """`environment` of a row that is measured in this process."""
    importlib.import_module('mmcv._ext')  # mmcv's own, or that of hybrid_backbones.compat, which records it
    return dict(
        versions=_versions(),
        operators=applied.get('operators', "mmcv's compiled operators"),
        device=_device(),
        precision=precision,
        threads=threads,
    )


def _versions() -> dict[str, str]:
    versions = dict(python=platform.python_version(), platform=platform.platform(terse=True))
    for package in (*_PACKAGES, 'hybrid_backbones'):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return processor_name()


@cache
def commit() -> str | None:
    """Commit of the code, with + if there are uncommitted changes; None outside a repository."""
    here = Path(__file__).parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(['git', *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git('ls-files', '--error-unmatch', __file__)  # an installed package may lie within another repository
        return git('rev-parse', '--short=12', 'HEAD') + '+' * bool(git('status', '--porcelain', '--untracked-files=no'))
    except (OSError, subprocess.CalledProcessError):
        return None
