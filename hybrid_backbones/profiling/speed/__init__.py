"""Time and memory of backbones and whole models, measured side by side."""

from ..subjects import create_network
from .comparison import compare, profile
from .records import COLUMNS, Settings, Speed, growth, table

__all__ = ['COLUMNS', 'Settings', 'Speed', 'compare', 'create_network', 'growth', 'profile', 'table']
