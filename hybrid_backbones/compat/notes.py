"""What was mended on this machine, said once in the log of the run."""

import logging
import sys
from types import ModuleType

from . import hooks

notes: dict[str, str] = {}
_unsaid: list[str] = []


def note(piece: str, message: str, level: int = logging.INFO) -> None:
    """Record that `piece` acted, once, and log `message` (to the current MMLogger, later where there is none yet)."""
    if piece in notes:
        return
    notes[piece] = message
    logging.getLogger('hybrid_backbones').log(level, '%s: %s', piece, message)
    logger = _current_mmlogger()
    if logger is None:
        _unsaid.append(piece)
    else:
        logger.log(level, 'hybrid_backbones.compat, %s: %s', piece, message)


def _say_unsaid(logger: logging.Logger) -> None:
    """Log what was mended before `logger` existed."""
    while _unsaid:
        piece = _unsaid.pop(0)
        logger.info('hybrid_backbones.compat, %s: %s', piece, notes[piece])


def _current_mmlogger() -> logging.Logger | None:
    cls = getattr(sys.modules.get('mmengine.logging.logger'), 'MMLogger', None)
    return cls.get_current_instance() if cls is not None and cls._instance_dict else None


def _watch_runner(module: ModuleType) -> None:
    original = module.Runner.build_logger
    if original.__module__ == __name__:
        return

    def build_logger(self, *args, **kwargs):
        logger = original(self, *args, **kwargs)
        _say_unsaid(logger)
        return logger

    module.Runner.build_logger = build_logger


def install() -> None:
    hooks.after('mmengine.runner.runner', _watch_runner)
