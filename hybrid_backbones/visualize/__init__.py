"""PNG pictures of predictions, curves, feature pyramids, receptive fields and attention."""

from ..engine.runs import final_metrics, find_run, read_scalars
from .attention import draw_attention
from .curves import compare_runs, draw_curves
from .features import draw_features
from .predictions import save_predictions
from .receptive_field import draw_receptive_fields

__all__ = [
    'compare_runs',
    'draw_attention',
    'draw_curves',
    'draw_features',
    'draw_receptive_fields',
    'final_metrics',
    'find_run',
    'read_scalars',
    'save_predictions',
]
