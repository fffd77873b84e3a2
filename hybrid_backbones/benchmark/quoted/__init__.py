"""Published COCO, ADE20K and Cityscapes figures, each with its source."""

from .as_rows import quoted_rows
from .table import METRICS, Quoted, published_value, quoted

__all__ = ['METRICS', 'Quoted', 'published_value', 'quoted', 'quoted_rows']
