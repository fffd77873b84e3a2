"""Act on a module when it is imported, without importing it here.

One finder at the head of `sys.meta_path` serves every patch of `compat`. Modules that were imported before us (a config
naming hybrid_backbones in its `custom_imports` is read late) are handled at once by `after`.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from types import ModuleType

Finder = Callable[[importlib.machinery.ModuleSpec | None], importlib.machinery.ModuleSpec | None]

_around: dict[str, list[Callable[[], AbstractContextManager]]] = {}
_after: dict[str, list[Callable[[ModuleType], None]]] = {}
_replace: dict[str, Finder] = {}


def around(name: str, context: Callable[[], AbstractContextManager]) -> None:
    """Execute module `name` inside `context()`; nothing happens where it is already imported."""
    _around.setdefault(name, []).append(context)


def after(name: str, function: Callable[[ModuleType], None]) -> None:
    """Call `function(module)` once module `name` has executed: now where it already has."""
    _after.setdefault(name, []).append(function)
    module = sys.modules.get(name)
    if module is not None and not getattr(module.__spec__, '_initializing', False):
        function(module)


def replace(name: str, finder: Finder) -> None:
    """Let `finder(spec)` decide how module `name` is loaded; `spec` is what Python found, None where it found none."""
    _replace[name] = finder


def rebind(old: object, new: object) -> None:
    """Give every OpenMMLab module that was already imported `new` under the names by which it holds `old`."""
    modules = [
        m for name, m in list(sys.modules.items()) if name.split('.')[0] in ('mmengine', 'mmcv', 'mmdet', 'mmseg')
    ]
    for module in modules:
        for name, value in list(vars(module).items()):
            if value is old:
                setattr(module, name, new)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _around and fullname not in _after and fullname not in _replace:
            return None
        spec = self._find_elsewhere(fullname, path, target)
        if fullname in _replace:
            spec = _replace[fullname](spec)
        if spec is not None and spec.loader is not None:
            _watch(spec)
        return spec

    def _find_elsewhere(self, fullname, path, target):
        for finder in sys.meta_path:
            if finder is not self and hasattr(finder, 'find_spec'):
                spec = finder.find_spec(fullname, path, target)
                if spec is not None:
                    return spec
        return None


def _watch(spec: importlib.machinery.ModuleSpec) -> None:
    execute = spec.loader.exec_module

    def exec_module(module: ModuleType) -> None:
        if module.__spec__ is not spec:  # some loaders (of zip files) are shared by their modules
            execute(module)
            return
        with ExitStack() as stack:
            for context in _around.get(spec.name, ()):
                stack.enter_context(context())
            execute(module)
        for function in _after.get(spec.name, ()):
            function(module)

    # On the instance, so that the loader keeps its type: importlib.resources and inspect look at it.
    spec.loader.exec_module = exec_module


_finder = _Finder()


def install() -> bool:
    """Put the finder in place; False where it already is."""
    if _finder in sys.meta_path:
        return False
    sys.meta_path.insert(0, _finder)
    return True
