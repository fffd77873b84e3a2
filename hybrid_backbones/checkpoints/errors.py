"""Errors of checkpoints."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be found or read, or is of another network than the one it is loaded into."""


class ByHandError(CheckpointError):
    """A published file is not on this machine, and only a person can get it."""


class WrongModelError(CheckpointError, ValueError):
    """A checkpoint is of another model than the one that a config builds."""
