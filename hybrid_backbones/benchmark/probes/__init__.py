"""Frozen probes: how much of a task a backbone's features hold before any of its weights is trained."""

from .detection import DetectionProbe, probe_detection
from .features import Features, FeaturesError, Subject, compute_features, task_key
from .logme import logme
from .segmentation import SegmentationProbe, linear_probe, probe_segmentation

__all__ = [
    'DetectionProbe',
    'Features',
    'FeaturesError',
    'SegmentationProbe',
    'Subject',
    'compute_features',
    'linear_probe',
    'logme',
    'probe_detection',
    'probe_segmentation',
    'task_key',
]
