"""Which patches acted on this machine, reported once in the log of each run."""

import logging
from types import ModuleType

from . import import_hooks

# What each patch did, by its name.
applied: dict[str, str] = {}
_log = logging.getLogger('hybrid_backbones')


def log_patch(name: str, message: str, level: int = logging.INFO) -> None:
    """Record that the patch `name` acted, and log `message` once: to the log of MMEngine's current run, if any."""
    if name not in applied:
        applied[name] = message
        _log.log(level, 'hybrid_backbones.compat, %s: %s', name, message)


def _patch_runner(module: ModuleType) -> None:
    original = module.Runner.build_logger
    if original.__module__ == __name__:
        return

    def build_logger(self, *args, **kwargs):
        global _log
        _log = original(self, *args, **kwargs)
        for name, message in applied.items():
            _log.info('hybrid_backbones.compat, %s: %s', name, message)
        return _log

    module.Runner.build_logger = build_logger


def install() -> None:
    import_hooks.after('mmengine.runner.runner', _patch_runner)
