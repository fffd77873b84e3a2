"""Finding installed packages without what setuptools 82 (`pkg_resources`) and Python 3.14 removed."""

import importlib.util
import pkgutil
from importlib import metadata
from pathlib import Path
from types import ModuleType

from . import import_hooks
from .log import log_patch


def is_installed(package: str) -> bool:
    """Whether `package` is a distribution or an importable (not a namespace) module."""
    try:
        metadata.distribution(package)
        return True
    except metadata.PackageNotFoundError:
        spec = importlib.util.find_spec(package)
        return spec is not None and spec.origin is not None


def package2module(package: str) -> str:
    """Name of the module that distribution `package` installs: 'mmsegmentation' -> 'mmseg'."""
    names = modules_of(metadata.distribution(package))
    if not names:
        raise ValueError(f'cannot infer the module name of {package}: it declares no top-level module')
    return names[0]


def modules_of(distribution: metadata.Distribution) -> list[str]:
    """Names of the modules that it installs: those that it lists, else those that its files are of."""
    listed = (distribution.read_text('top_level.txt') or '').split()
    # `metadata.packages_distributions` of Python 3.10 has the listed alone.
    return listed or sorted({file.parts[0] for file in distribution.files or () if file.parts[1:] == ('__init__.py',)})


def get_installed_path(package: str) -> str:
    """Folder of the module that `package`, a distribution or a module on the path, brings.

    Raises:
        PackageNotFoundError: there is neither a distribution nor a module of that name.
        RuntimeError: the module is a namespace package, which has no one folder.
    """
    try:
        location = Path(metadata.distribution(package).locate_file(''))
    except metadata.PackageNotFoundError:
        if importlib.util.find_spec(package) is None:
            raise
        return _module_folder(package)
    for name in (package, package2module(package)):
        if (location / name).exists():
            return str(location / name)
    return _module_folder(package2module(package))  # an editable install lies elsewhere than its metadata


def _module_folder(name: str) -> str:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise RuntimeError(f'{name} is a namespace package, which has no installed path')
    return str(Path(spec.origin).parent)


def _patch_package_utils(module: ModuleType) -> None:
    if _has_pkg_resources():
        return
    for function in (is_installed, package2module, get_installed_path):
        import_hooks.rebind(getattr(module, function.__name__), function)
    log_patch(
        'packages',
        "packages and `mmdet::`, `mmseg::` config bases are found by importlib.metadata, not setuptools' pkg_resources",
    )


def _name_modules(config_utils: ModuleType) -> None:
    """MMEngine's table has upstream's distributions; where a fork's brings the module, the module's name finds it."""
    table = config_utils.MODULE2PACKAGE
    for module, distribution in table.items():
        if module != distribution and importlib.util.find_spec(module) and not is_installed(distribution):
            table[module] = module
            log_patch('forks', f'`{module}::` config bases are those of the installed {module}, not of {distribution}')


def _has_pkg_resources() -> bool:
    """Whether setuptools has it still, and without the warnings that releases from 80 on give to whoever imports it."""
    if importlib.util.find_spec('pkg_resources') is None:
        return False
    return int(metadata.version('setuptools').split('.')[0]) < 80


def _find_loader(fullname: str):
    """`pkgutil.find_loader` as Python had it until 3.13."""
    spec = importlib.util.find_spec(fullname)
    return None if spec is None else spec.loader


def install() -> None:
    import_hooks.after('mmengine.utils.package_utils', _patch_package_utils)
    import_hooks.after('mmengine.config.utils', _name_modules)
    if not hasattr(pkgutil, 'find_loader'):
        pkgutil.find_loader = _find_loader
        log_patch(
            'find_loader', 'this Python has no pkgutil.find_loader, by which mmcv looks for its operators; provided'
        )
