"""Frozen probes: how much of a task a backbone's features hold before any of its weights is trained."""

from .features import Features, FeaturesError, Subject, compute_features
from .logme import logme
from .segmentation import SegmentationProbe, probe_segmentation

__all__ = [
    'Features',
    'FeaturesError',
    'SegmentationProbe',
    'Subject',
    'compute_features',
    'logme',
    'probe_segmentation',
]
