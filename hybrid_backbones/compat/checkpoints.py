"""MMEngine's checkpoints under `weights_only=True`, PyTorch's default since 2.6 and ours always.

Besides tensors and plain containers an MMEngine checkpoint holds the log of its run: `HistoryBuffer`s of NumPy arrays,
which name their own statistics methods through `getattr`. Exactly these are allowed while MMEngine loads a checkpoint.
"""

import os
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

from . import import_hooks
from .log import log_patch

_STATISTICS = ('min', 'max', 'current', 'mean')
_SWITCHES = ('TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD')
# They belong to the whole process.
_lock = threading.RLock()


def _patch_loader(module: ModuleType) -> None:
    cls = module.CheckpointLoader
    original = cls.load_checkpoint.__func__
    if original.__module__ == __name__:
        return

    def load_checkpoint(cls, filename, map_location=None, logger='current'):
        with weights_only():
            log_patch(
                'checkpoints',
                'checkpoints are read with weights_only=True, and HistoryBuffer and NumPy arrays allowed in them',
            )
            try:
                return _inert(original(cls, filename, map_location, logger))
            except pickle.UnpicklingError as error:
                raise pickle.UnpicklingError(_explain(str(filename), error)) from None
            except (EOFError, RuntimeError) as error:
                if isinstance(error, RuntimeError) and 'zip archive' not in str(error):
                    raise
                raise type(error)(f'{filename} is empty, damaged or cut short: copy or download it again') from error

    cls.load_checkpoint = classmethod(load_checkpoint)
    if hasattr(module, 'get_torch_safe_globals'):
        module.get_torch_safe_globals = list  # onedl's allows `getattr` of anything, and no more than is allowed here


def _inert(checkpoint):
    """`checkpoint` without the text of a config, which `Runner.resume` would execute; MMEngine >= 0.2 writes none."""
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    if isinstance(meta, dict):
        meta.pop('config', None)
    return checkpoint


@contextmanager
def weights_only(*classes: type) -> Iterator[None]:
    """Every `torch.load` inside reads weights only.

    Allowed are what MMEngine stores, `classes`, and what the user has allowed by `torch.serialization`.
    """
    from torch import serialization

    with _lock:
        switches = {name: os.environ.pop(name, None) for name in _SWITCHES}
        # Also for torch.hub's downloads, which ask for weights_only=False.
        os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'
        users = serialization.get_safe_globals()
        serialization.add_safe_globals([*_allowed(), *classes])
        try:
            yield
        finally:
            serialization.clear_safe_globals()
            serialization.add_safe_globals(users)
            del os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD']
            os.environ.update({name: value for name, value in switches.items() if value is not None})


def _allowed() -> list[Callable]:
    import numpy as np
    from mmengine.logging.history_buffer import HistoryBuffer

    try:
        from numpy._core.multiarray import _reconstruct, scalar
    except ImportError:  # NumPy 1
        from numpy.core.multiarray import _reconstruct, scalar
    rebuilders = [
        _named(function, f'numpy.{core}.multiarray.{function.__name__}')
        for function in (_reconstruct, scalar)
        for core in ('core', '_core')
    ]
    getters = [_named(_statistic, name) for name in ('builtins.getattr', '__builtin__.getattr')]
    dtypes = {type(np.dtype(code)) for code in '?bBhHiIlLqQefdgFDSU'}
    return [HistoryBuffer, np.ndarray, np.dtype, *dtypes, *rebuilders, *getters]


def _named(function: Callable, path: str) -> Callable:
    """`function` under the name by which a checkpoint asks for it."""

    def call(*args):
        return function(*args)

    call.__module__, _, call.__name__ = path.rpartition('.')
    call.__qualname__ = call.__name__
    return call


def _statistic(owner: object, name: str) -> Callable:
    """The one use of `getattr` in an MMEngine checkpoint: the methods of HistoryBuffer, by name."""
    from mmengine.logging.history_buffer import HistoryBuffer

    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise pickle.UnpicklingError(f'GLOBAL getattr({owner!r}, {name!r}) was not an allowed global by default.')
    return getattr(owner, name)


def _explain(filename: str, error: pickle.UnpicklingError) -> str:
    classes = _refused(filename, str(error))
    if not classes:
        return f'{filename} cannot be read as a checkpoint: {str(error).strip().splitlines()[-1]}'
    return (
        f'{filename} was not loaded: it carries {", ".join(classes)}, and nothing read from a checkpoint may run code. '
        "Allowed are tensors, plain Python containers, NumPy arrays and MMEngine's HistoryBuffer. If you know what "
        'the object is and trust the file, import its class and allow it before loading: '
        'torch.serialization.add_safe_globals([...]). If you do not, do not use the file.'
    )


def _refused(filename: str, message: str) -> list[str]:
    """Names of what `filename` carries beyond the allowed; from the error's text where the file cannot be listed."""
    from torch import serialization

    if os.path.isfile(os.path.expanduser(filename)):  # noqa: PTH111, PTH113  (as MMEngine)
        try:
            classes = serialization.get_unsafe_globals_in_checkpoint(os.path.expanduser(filename))  # noqa: PTH111
        except (ValueError, RuntimeError, EOFError, pickle.UnpicklingError):
            classes = []
        if classes:
            return sorted(classes)
    return re.findall(r'GLOBAL (\S+(?:\(.*?\))?) w', message)[:1]


def install() -> None:
    import_hooks.after('mmengine.runner.checkpoint', _patch_loader)
