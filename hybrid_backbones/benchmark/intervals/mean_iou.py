"""mIoU from the areas of every image: sums over images are a matrix product with the counts of a redraw."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from .bootstrap import CONFIDENCE, REDRAWS, Interval, interval


@dataclass(frozen=True)
class MeanIoU:
    """mIoU as MMSegmentation's `IoUMetric` defines it: areas are summed over images, absent classes are left out.

    Attributes:
        images: Identifiers, I of them.
        intersections: Pixels of every class that are predicted rightly, `(I, C)`.
        unions: Pixels of every class in the truth or in the prediction, `(I, C)`.
    """

    images: tuple[Hashable, ...]
    intersections: np.ndarray
    unions: np.ndarray

    def __post_init__(self) -> None:
        shapes = np.shape(self.intersections), np.shape(self.unions)
        if shapes[0] != shapes[1] or len(shapes[0]) != 2 or shapes[0][0] != len(self.images):
            raise ValueError(
                f'intersections and unions must have the shape (images, classes) with {len(self.images)} images, '
                f'got {shapes[0]} and {shapes[1]}'
            )

    def scores(self, counts: np.ndarray) -> np.ndarray:
        """mIoU of redraws, `(R,)`, between 0 and 1; see :class:`.PerImage`."""
        # As float64, areas are exact up to 2**53 pixels, and the product is one of BLAS.
        counts = counts.astype(np.float64)
        intersections, unions = counts @ self.intersections.astype(np.float64), counts @ self.unions.astype(np.float64)
        present = unions > 0
        ious = np.divide(intersections, unions, out=np.zeros_like(unions), where=present)
        classes = present.sum(1)
        return np.divide(ious.sum(1), classes, out=np.full(len(counts), np.nan), where=classes > 0)


def class_areas(
    truth: np.ndarray, prediction: np.ndarray, *, classes: int, ignored: int = 255
) -> tuple[np.ndarray, np.ndarray]:
    """Intersections and unions of an image's classes in pixels, `(C,)` each.

    Args:
        truth, prediction: Label maps, `(H, W)`.
        classes: C.
        ignored: Label in `truth` of pixels that do not count.

    Raises:
        ValueError: Different shapes, or another label.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f'label maps of different shapes: {truth.shape} and {prediction.shape}')
    valid = truth != ignored
    truth, prediction = truth[valid].astype(np.int64), prediction[valid].astype(np.int64)
    for name, labels in (('truth', truth), ('prediction', prediction)):
        if labels.size and not 0 <= labels.min() <= labels.max() < classes:
            raise ValueError(f'{name} has labels from {labels.min()} to {labels.max()}, expected 0 to {classes - 1}')
    intersections = np.bincount(truth[truth == prediction], minlength=classes)
    unions = np.bincount(truth, minlength=classes) + np.bincount(prediction, minlength=classes) - intersections
    return intersections, unions


def miou_interval(
    areas: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    redraws: int = REDRAWS,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """mIoU with its interval, from the :func:`class_areas` of every image."""
    intersections, unions = (np.stack(part) for part in zip(*areas, strict=True))
    metric = MeanIoU(tuple(range(len(areas))), intersections, unions)
    return interval(metric, redraws=redraws, seed=seed, confidence=confidence)
