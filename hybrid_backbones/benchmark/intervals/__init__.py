"""Confidence intervals of AP and mIoU by bootstrapping over images, paired between models."""

from .average_precision import METRICS, AveragePrecision, Detections, ap_interval
from .bootstrap import Interval, PerImage, interval, interval_of_redraws, paired_difference, redraw
from .mean_iou import MeanIoU, class_areas, miou_interval

__all__ = [
    'METRICS',
    'AveragePrecision',
    'Detections',
    'Interval',
    'MeanIoU',
    'PerImage',
    'ap_interval',
    'class_areas',
    'interval',
    'interval_of_redraws',
    'miou_interval',
    'paired_difference',
    'redraw',
]
