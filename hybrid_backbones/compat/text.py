"""mmsegmentation imports ftfy and regex on import, for a text tokenizer that only open-vocabulary models use."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

from . import import_hooks
from .log import log_patch


class _Missing(ModuleType):
    """Stands for a module that is not installed: anything goes while its importer executes, nothing thereafter."""

    importing = True

    def __getattr__(self, name: str) -> Callable:
        if name.startswith('__'):
            raise AttributeError(name)
        if self.importing:
            return lambda *args: None  # mmseg compiles its tokenizer's pattern on import
        raise ModuleNotFoundError(
            f"mmsegmentation's text tokenizer needs {self.__name__}.{name}: pip install {self.__name__}",
            name=self.__name__,
        )


@contextmanager
def _without_text_packages() -> Iterator[None]:
    missing = {name: _Missing(name) for name in ('ftfy', 'regex') if importlib.util.find_spec(name) is None}
    sys.modules.update(missing)
    try:
        yield
    finally:
        for name, module in missing.items():
            module.importing = False
            del sys.modules[name]
    if missing:
        log_patch(
            'text', f'{" and ".join(missing)} not installed; mmsegmentation imports, its text tokenizer will not run'
        )


def install() -> None:
    import_hooks.around('mmseg.utils.tokenizer', _without_text_packages)
