"""Configs of this package by name, from any folder: `hybrid_backbones::maskrcnn_conv2former_t_coco.py`.

MMEngine finds configs of packages in a table of OpenMMLab's own, wants them in subfolders, and builds everything in
them by the package's registries. These have no subfolder, and are built by the registries of mmdet and mmseg.
"""

import difflib
import importlib.util
from pathlib import Path

from mmengine.config import Config
from mmengine.config import utils as config_utils

from ..compat import import_hooks

PACKAGE = __package__.partition('.')[0]
PREFIX = f'{PACKAGE}::'
CONFIGS = Path(__file__).parents[1] / '.mim' / 'configs'

_split = config_utils._get_package_and_cfg_path
_get_cfg_path = Config._get_cfg_path


def locate(path: str | Path) -> str:
    """The file of a config that is given by name; any other path as it is.

    Raises:
        FileNotFoundError: No config of this package has that name; similar ones.
    """
    path = str(path)
    if not path.startswith(PREFIX):
        return path
    name = path.removeprefix(PREFIX)
    file = CONFIGS / name
    if not file.is_file():
        known = sorted(each.relative_to(CONFIGS).as_posix() for each in CONFIGS.rglob('*.py'))
        similar = ', '.join(difflib.get_close_matches(name, known, n=4)) or f'those in {CONFIGS}'
        raise FileNotFoundError(f'no config {path}; there are {similar}')
    return str(file)


def packaged_file(path: str) -> Path:
    """The file that `package::name` stands for.

    Raises:
        ValueError: The package is not installed.
    """
    package, _, name = path.partition('::')
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.origin:
        raise ValueError(f'{path}: there is no package {package!r} here; mmdet::... and mmseg::... are installed')
    return Path(spec.origin).parent / '.mim' / 'configs' / name


def name_of(path: str | Path) -> str:
    """Name of a config without folder, package and suffix."""
    return Path(str(path).rpartition('::')[2]).stem


def _package_and_path(cfg_path: str) -> tuple[str, str]:
    return (PACKAGE, cfg_path.removeprefix(PREFIX)) if cfg_path.startswith(PREFIX) else _split(cfg_path)


def _base_and_scope(cfg_path: str, filename: str) -> tuple[str, str | None]:
    if cfg_path.startswith(PREFIX):
        return locate(cfg_path), None
    package, separator, _ = cfg_path.partition('::')
    # MMEngine finds the same file, after it has parsed all metafiles of the package: a quarter of a second a base.
    if separator and importlib.util.find_spec(package) and (file := packaged_file(cfg_path)).is_file():
        return str(file), package
    return _get_cfg_path(cfg_path, filename)


config_utils.MODULE2PACKAGE[PACKAGE] = PACKAGE
import_hooks.rebind(_split, _package_and_path)  # used by mmengine.hub
Config._get_cfg_path = staticmethod(_base_and_scope)
