"""Reading published checkpoints."""

from .errors import CheckpointError
from .layouts import KeyLayout
from .loading import LoadReport, load_pretrained
from .published import list_published
from .reading import read_state_dict

__all__ = ['CheckpointError', 'KeyLayout', 'LoadReport', 'list_published', 'load_pretrained', 'read_state_dict']
