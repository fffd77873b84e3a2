"""Time and memory of backbones and whole models, side by side."""

from ..subjects import create_network
from .comparison import compare, profile
from .records import Settings, Speed, growth, table

__all__ = ['Settings', 'Speed', 'compare', 'create_network', 'growth', 'profile', 'table']
