"""What the reader of each layout gives: images with their objects or label map, and the names of the classes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..checks.coco_file import on_a_line
from .label_coding import LabelCoding

SPLITS = ('train', 'val', 'test')


def has_area(polygon: list[float]) -> bool:
    """Whether x, y, x, y, ... are three points or more that are not on one line."""
    if len(polygon) < 6 or len(polygon) % 2 or not all(isinstance(value, (int, float)) for value in polygon):
        return False
    flat = np.array(polygon)
    return bool(np.isfinite(flat).all()) and not on_a_line(flat, np.array([len(flat)])).any()


@dataclass
class RawObject:
    """One object of an image.

    Attributes:
        category: Number of its class, from 0.
        box: x, y, width and height in pixels, the corner at the upper left.
        segmentation: COCO's polygons or run lengths; None where there is a box alone.
        ignored: Neither trained nor counted as a miss: COCO's crowd, VOC's difficult.
        area: In square pixels; None where it follows from the rest.
    """

    category: int
    box: tuple[float, float, float, float]
    segmentation: list[list[float]] | dict[str, Any] | None = None
    ignored: bool = False
    area: float | None = None


@dataclass
class RawImage:
    """One image with what is labelled in it.

    Attributes:
        path: The image file.
        size: Width and height in pixels, as decoders turn it by its EXIF orientation.
        split: 'train', 'val' or 'test'; None where the folder has no splits.
        objects: For layouts of boxes and polygons.
        label_map: For layouts of masks.
        keeps_label_map: Its pixels are class numbers already.
        amounts: How much of each class is in it: objects, or pixels of the label map.
    """

    path: Path
    size: tuple[int, int]
    split: str | None = None
    objects: list[RawObject] = field(default_factory=list)
    label_map: Path | None = None
    keeps_label_map: bool = False
    amounts: dict[int, int] = field(default_factory=dict)


@dataclass
class RawData:
    """All of a folder.

    Attributes:
        layout: Its name, for people.
        classes: Names, in the order of their numbers.
        images: In the order of their paths.
        notes: What was left out, and other things worth knowing.
        coding: How pixels of the label maps are translated to classes.
    """

    layout: str
    classes: tuple[str, ...]
    images: list[RawImage]
    notes: list[str] = field(default_factory=list)
    coding: LabelCoding | None = None

    @property
    def with_masks(self) -> bool:
        """Whether every object has an outline."""
        return all(item.segmentation for image in self.images for item in image.objects if not item.ignored)
