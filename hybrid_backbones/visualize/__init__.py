"""Pictures, all PNG: predictions, curves, feature pyramids, receptive fields, attention; see `tools/visualize.py`."""

from .attention import draw_attention
from .curves import compare_runs, draw_curves
from .features import draw_features
from .pairs import Panel, draw_pairs, draw_predictions
from .predictions import save_predictions
from .receptive_field import draw_receptive_fields
from .runs import final_metrics, find_run, read_scalars

__all__ = [
    'Panel',
    'compare_runs',
    'draw_attention',
    'draw_curves',
    'draw_features',
    'draw_pairs',
    'draw_predictions',
    'draw_receptive_fields',
    'final_metrics',
    'find_run',
    'read_scalars',
    'save_predictions',
]
