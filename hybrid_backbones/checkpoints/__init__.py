"""Reading published checkpoints."""

from .loading import LoadReport, load_pretrained
from .published import list_published
from .reading import CheckpointError, read_state_dict

__all__ = ['CheckpointError', 'LoadReport', 'list_published', 'load_pretrained', 'read_state_dict']
