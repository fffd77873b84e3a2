"""The bootstrap over images: how much a score would change with another draw of the test images.

Images are drawn with replacement, as many as there are; a metric is computed again from its per-image results, which
are counted as often as their image was drawn. Intervals are percentiles of the redrawn scores (Efron and Tibshirani,
An Introduction to the Bootstrap, 1993, chapter 13), moved so that the mean of these is the score: AP takes maxima over
noisy precisions, so it rises as objects get fewer, and again in redraws, which repeat objects. In a simulation with 20
classes of 20 objects, this raises the coverage of 95 % intervals from 90 % to 93 %.

What an interval covers is the mean score over test sets of as many images. For AP, that of infinitely many images is
lower: by 0.3 standard deviations with 3 classes of 50 objects, by 0.9 with 20 classes of 20. Models that are compared
on the same images share this. The choice of the seed of training is not covered.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

CONFIDENCE = 0.95
REDRAWS = 1000


class PerImage(Protocol):
    """A metric in parts, from which it is computed for any redraw of its images."""

    @property
    def images(self) -> tuple[Hashable, ...]:
        """Identifiers of the images, in the order of the counts."""

    def scores(self, counts: np.ndarray) -> np.ndarray:
        """The metric of R redraws, `(R,)`, in which image i is drawn `counts[r, i]` times; NaN where undefined."""


@dataclass(frozen=True)
class Interval:
    """A score, or a difference of scores, with the limits of its confidence interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """As an interval of a difference: the two models are distinguished."""
        return self.low > 0 or self.high < 0


def redraw(images: int, *, redraws: int = REDRAWS, seed: int = 0) -> np.ndarray:
    """How often every image is drawn, `(redraws, images)`; equal arguments give equal draws, so scores are paired.

    Raises:
        ValueError: Fewer than two images or redraws.
    """
    for name, number in (('images', images), ('redraws', redraws)):
        if number < 2:
            raise ValueError(f'an interval needs at least 2 {name}, got {number}')
    drawn = np.random.default_rng(seed).integers(images, size=(redraws, images))
    drawn += np.arange(redraws)[:, None] * images
    return np.bincount(drawn.ravel(), minlength=redraws * images).reshape(redraws, images)


def interval(metric: PerImage, *, redraws: int = REDRAWS, seed: int = 0, confidence: float = CONFIDENCE) -> Interval:
    """A metric's score with its interval over images.

    Raises:
        ValueError: Fewer than two images or redraws, or the score is undefined (no objects or labels).
    """
    counts = redraw(len(metric.images), redraws=redraws, seed=seed)
    return interval_of_redraws(_score(metric), metric.scores(counts), confidence)


def paired_difference(
    first: PerImage, second: PerImage, *, redraws: int = REDRAWS, seed: int = 0, confidence: float = CONFIDENCE
) -> Interval:
    """`first - second` with its interval, both scored on the same draws of the same images.

    What is hard or easy for both models cancels, so that this distinguishes models whose own intervals overlap.

    Raises:
        ValueError: Their images differ, or as :func:`interval`.
    """
    if first.images != second.images:
        known = len({*first.images} & {*second.images})
        raise ValueError(
            f'paired differences need the same images in the same order, got {len(first.images)} and '
            f'{len(second.images)} images with {known} in common'
        )
    counts = redraw(len(first.images), redraws=redraws, seed=seed)
    value = _score(first) - _score(second)
    return interval_of_redraws(value, first.scores(counts) - second.scores(counts), confidence)


def _score(metric: PerImage) -> float:
    """The score of all images, each counted once."""
    score = float(metric.scores(np.ones((1, len(metric.images)), np.int64))[0])
    if np.isnan(score):
        raise ValueError(f'the score is undefined: no objects or labels in {len(metric.images)} images')
    return score


def interval_of_redraws(value: float, scores: np.ndarray, confidence: float = CONFIDENCE) -> Interval:
    """The interval of a score, or of a difference of scores, from its values in redraws of the images, `(R,)`."""
    # A redraw may miss all objects; there is no score then.
    low, high = np.nanquantile(scores, [(1 - confidence) / 2, (1 + confidence) / 2]) - np.nanmean(scores) + value
    return Interval(value, float(low), float(high))
