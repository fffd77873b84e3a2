"""What was mended on this machine, said once in the log of each run."""

import logging
from types import ModuleType

from . import hooks

notes: dict[str, str] = {}
_log = logging.getLogger('hybrid_backbones')


def note(piece: str, message: str, level: int = logging.INFO) -> None:
    """Record that `piece` acted, and log `message` once: to the log of MMEngine's current run, where there is one."""
    if piece not in notes:
        notes[piece] = message
        _log.log(level, 'hybrid_backbones.compat, %s: %s', piece, message)


def _watch_runner(module: ModuleType) -> None:
    original = module.Runner.build_logger
    if original.__module__ == __name__:
        return

    def build_logger(self, *args, **kwargs):
        global _log
        _log = original(self, *args, **kwargs)
        for piece, message in notes.items():
            _log.info('hybrid_backbones.compat, %s: %s', piece, message)
        return _log

    module.Runner.build_logger = build_logger


def install() -> None:
    hooks.after('mmengine.runner.runner', _watch_runner)
