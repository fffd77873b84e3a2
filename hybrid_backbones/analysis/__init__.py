"""What a detector or segmentor gets wrong: `tools/test.py --analyze DIR`."""

from .detection import analyze_detections
from .run import analyze, keeping_predictions
from .segmentation import analyze_label_maps

__all__ = ['analyze', 'analyze_detections', 'analyze_label_maps', 'keeping_predictions']
