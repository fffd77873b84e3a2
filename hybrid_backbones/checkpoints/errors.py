"""What goes wrong with checkpoints."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be had or read, or that is not of the network it is loaded into."""
