"""Many backbones in many frameworks, measured alike and kept as rows."""

from .engines import ENGINES
from .running import run_sweep, status
from .spec import SpecError, read_spec

__all__ = ['ENGINES', 'SpecError', 'read_spec', 'run_sweep', 'status']
