"""Pairing, and coverage: how often an interval holds the mean score over test sets of as many images."""

from collections.abc import Callable

import numpy as np
import pytest

from hybrid_backbones.benchmark.intervals import (
    AveragePrecision,
    Detections,
    Interval,
    MeanIoU,
    PerImage,
    interval,
    paired_difference,
    redraw,
)

COVERAGE = (0.93, 0.97)
IMAGES = 150
CLASSES = 3


def simulated_segmentor(rng: np.random.Generator, difficulty: np.ndarray, quality: float) -> MeanIoU:
    """Areas of classes that are in two of three images; a difficult image, `(I, 1)`, is bad for every segmentor."""
    areas = rng.gamma(2, 500, (len(difficulty), CLASSES)) * (rng.random((len(difficulty), CLASSES)) < 2 / 3)
    right = areas * rng.beta(12 * quality, 12 * (1 - quality), areas.shape) * (1 - 0.8 * difficulty)
    false = rng.gamma(1, 60, areas.shape) * (rng.random(areas.shape) < 0.5)
    return MeanIoU(tuple(range(len(areas))), right, areas + false)


def simulated_detector(rng: np.random.Generator, difficulty: np.ndarray, objects: np.ndarray) -> AveragePrecision:
    """Detections of `objects`, `(I, C)`, with an IoU that falls with the image's difficulty, and false positives.

    Scores follow the IoU with noise.
    """
    thresholds, cells = np.arange(0.5, 1, 0.15), objects.size
    cell = np.concatenate([np.repeat(np.arange(cells), objects.ravel()), rng.integers(cells, size=cells // 2)])
    image, category = np.divmod(cell, objects.shape[1])
    overlap = 1 / (1 + np.exp(difficulty[image, 0] - 1.7 + rng.normal(0, 1, len(cell))))
    overlap[objects.sum() :] = rng.uniform(0, 0.5, cells // 2)
    score = overlap + rng.normal(0, 0.15, len(cell))
    matched = overlap > thresholds[:, None]
    found = Detections(image, category, score, matched, np.zeros_like(matched))
    return AveragePrecision(tuple(range(len(objects))), objects, found, np.linspace(0, 1, 101))


def segmentors(rng: np.random.Generator) -> tuple[MeanIoU, MeanIoU]:
    """A better one and a worse one, on the same new test set."""
    difficulty = rng.random((IMAGES, 1))
    return simulated_segmentor(rng, difficulty, 0.82), simulated_segmentor(rng, difficulty, 0.8)


def detectors(rng: np.random.Generator) -> tuple[AveragePrecision, AveragePrecision]:
    """A better one and a worse one, on the same new test set with half an object by image and class."""
    difficulty, objects = rng.random((IMAGES, 1)), rng.poisson(rng.gamma(2, 0.25, (IMAGES, 1)), (IMAGES, CLASSES))
    return simulated_detector(rng, difficulty - 0.2, objects), simulated_detector(rng, difficulty, objects)


def score(metric: PerImage) -> float:
    return float(metric.scores(np.ones((1, len(metric.images)), int))[0])


def coverage(draw: Callable, *, repeats: int, redraws: int, sets: int = 1000) -> tuple[float, float]:
    """Of the intervals of the first model's score, and of those of its difference from the second."""
    rng = np.random.default_rng(0)
    truth = np.mean([[score(model) for model in draw(rng)] for _ in range(sets)], 0)
    held = []
    for seed in range(repeats):
        pair = draw(rng)
        alone = interval(pair[0], redraws=redraws, seed=seed)
        paired = paired_difference(*pair, redraws=redraws, seed=seed)
        held.append([alone.low <= truth[0] <= alone.high, paired.low <= truth[0] - truth[1] <= paired.high])
    return tuple(np.mean(held, 0))


def test_coverage_of_miou():
    for share in coverage(segmentors, repeats=1000, redraws=400):
        assert COVERAGE[0] <= share <= COVERAGE[1]


def test_coverage_of_ap_in_few_draws():
    # Three standard deviations of a share of 95 % of so few.
    for share in coverage(detectors, repeats=60, redraws=120, sets=300):
        assert share >= 0.865


@pytest.mark.slow
def test_coverage_of_ap():
    for share in coverage(detectors, repeats=1000, redraws=400):
        assert COVERAGE[0] <= share <= COVERAGE[1]


def test_pairing_cancels_what_is_common():
    first, second = segmentors(np.random.default_rng(1))
    paired = paired_difference(first, second)
    widths = [i.high - i.low for i in (interval(first), interval(second), paired)]
    assert widths[2] < 0.75 * np.hypot(*widths[:2])
    assert paired.value == score(first) - score(second)


def test_a_model_does_not_differ_from_itself():
    first, _ = segmentors(np.random.default_rng(1))
    assert paired_difference(first, first) == Interval(0, 0, 0)
    assert not paired_difference(first, first).excludes_zero


def test_seeds_repeat_their_draws():
    np.testing.assert_array_equal(redraw(7, redraws=5, seed=3), redraw(7, redraws=5, seed=3))
    assert (redraw(7, redraws=5, seed=3) != redraw(7, redraws=5, seed=4)).any()
    assert (redraw(7, redraws=5).sum(1) == 7).all()


def test_a_wider_confidence_is_a_wider_interval():
    first, _ = segmentors(np.random.default_rng(1))
    narrow, wide = interval(first, confidence=0.8), interval(first, confidence=0.99)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_mistakes_are_named():
    one = MeanIoU(('a',), np.ones((1, 2)), np.ones((1, 2)))
    with pytest.raises(ValueError, match='needs at least 2 images, got 1'):
        interval(one)
    two = MeanIoU(('a', 'b'), np.zeros((2, 2)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match='undefined: no objects or labels in 2 images'):
        interval(two)
    with pytest.raises(ValueError, match='got 1 and 2 images with 1 in common'):
        paired_difference(one, two)
