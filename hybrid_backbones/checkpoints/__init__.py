"""Reading published checkpoints."""

from .loading import LoadReport, load_pretrained
from .reading import CheckpointError, read_state_dict

__all__ = ['CheckpointError', 'LoadReport', 'load_pretrained', 'read_state_dict']
