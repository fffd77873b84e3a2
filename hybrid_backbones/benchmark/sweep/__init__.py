"""Sweeps: the same training and measurements for many backbones, kept as rows."""

from .data import locate_datasets
from .engines import ENGINES
from .jobs import read_jobs
from .running import run_sweep, status
from .spec import SpecError

__all__ = ['ENGINES', 'SpecError', 'locate_datasets', 'read_jobs', 'run_sweep', 'status']
