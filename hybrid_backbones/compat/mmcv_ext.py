"""mmcv's compiled operators: the compiled module where it works, `compat.ops` where it is absent or broken."""

import importlib.util
import logging
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

from . import import_hooks
from .log import log_patch

NAME = 'mmcv._ext'


class _Loader:
    """Loads the compiled module that Python found, or the stand-in."""

    def __init__(self, compiled: ModuleSpec | None):
        self.compiled = compiled
        self.stand_in: ModuleType | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        import torch  # noqa: F401  (its libraries must be in memory before the compiled module is)

        if self.compiled is not None:
            try:
                module = importlib.util.module_from_spec(self.compiled)
                self.compiled.loader.exec_module(module)
                return module
            except ImportError as error:
                self._say_broken(error)
        else:
            log_patch('operators', 'mmcv has no compiled operators; those of torch and torchvision are used')
        from .ops import make_module

        self.stand_in = make_module()
        return self.stand_in

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: `create_module` returns a complete module."""

    def _say_broken(self, error: ImportError) -> None:
        import mmcv
        import torch

        log_patch(
            'operators',
            f"mmcv {mmcv.__version__}'s compiled operators cannot be loaded with torch {torch.__version__} ({error}); "
            'those of torch and torchvision are used. Rebuild mmcv for this torch, or replace it with mmcv-lite',
            level=logging.WARNING,
        )


def _find(compiled: ModuleSpec | None) -> ModuleSpec:
    return ModuleSpec(NAME, _Loader(compiled), origin=compiled.origin if compiled else __file__)


def _refuse_layers(ops: ModuleType) -> None:
    loader = sys.modules[NAME].__spec__.loader
    if isinstance(loader, _Loader) and loader.stand_in:
        from .ops.refused import refuse_layers

        refuse_layers(loader.stand_in)


def install() -> None:
    import_hooks.replace(NAME, _find)
    import_hooks.after('mmcv.ops', _refuse_layers)
