"""Reading published checkpoints."""

from .loading import CheckpointError, load_pretrained

__all__ = ['CheckpointError', 'load_pretrained']
