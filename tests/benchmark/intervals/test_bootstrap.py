"""Pairing, and coverage: how often an interval holds the score of the population that its images are drawn from."""

import numpy as np
import pytest

from hybrid_backbones.benchmark.intervals import (
    AveragePrecision,
    Detections,
    MeanIoU,
    PerImage,
    interval,
    paired_difference,
)

COVERAGE = (0.93, 0.97)
POPULATION = 20_000
IMAGES = 200
CLASSES = 5


def simulated_segmentor(rng: np.random.Generator, images: int, quality: float, difficulty: np.ndarray) -> MeanIoU:
    """Areas of classes that are in two of three images; a difficult image, `(I, 1)`, is bad for every segmentor."""
    areas = rng.gamma(2, 500, (images, CLASSES)) * (rng.random((images, CLASSES)) < 2 / 3)
    right = areas * rng.beta(12 * quality, 12 * (1 - quality), areas.shape) * difficulty
    false = rng.gamma(1, 60, areas.shape) * (rng.random(areas.shape) < 0.5)
    return MeanIoU(tuple(range(images)), right, areas + false)


def simulated_detector(rng: np.random.Generator, images: int) -> AveragePrecision:
    """Objects whose IoU with their detection falls with the image's difficulty, and false positives.

    Scores follow the IoU with noise.
    """
    thresholds = np.arange(0.5, 1, 0.05)
    objects = rng.poisson(rng.gamma(2, 1.5, (images, 1)), (images, CLASSES))
    image, category = np.divmod(np.repeat(np.arange(images * CLASSES), objects.ravel()), CLASSES)
    difficulty = rng.normal(0, 0.5, images)[image]
    overlap = 1 / (1 + np.exp(-(1.2 + rng.normal(0, 1, len(image)) - difficulty)))
    false = np.divmod(rng.integers(images * CLASSES, size=4 * images), CLASSES)
    overlap = np.concatenate([overlap, rng.uniform(0, 0.5, len(false[0]))])
    score = overlap + rng.normal(0, 0.15, len(overlap))
    matched = overlap > thresholds[:, None]
    image, category = np.concatenate([image, false[0]]), np.concatenate([category, false[1]])
    found = Detections(image, category, score, matched, np.zeros_like(matched))
    return AveragePrecision(tuple(range(images)), objects, found, np.linspace(0, 1, 101))


def score(metric: PerImage) -> float:
    return metric.scores(np.ones((1, len(metric.images)), int))[0]


def test_coverage_of_miou():
    rng = np.random.default_rng(0)
    draw = lambda images: simulated_segmentor(rng, images, 0.8, rng.uniform(0.6, 1, (images, 1)))  # noqa: E731
    truth = score(draw(POPULATION))
    found = [interval(draw(IMAGES), redraws=400, seed=seed) for seed in range(1000)]
    assert COVERAGE[0] <= np.mean([i.low <= truth <= i.high for i in found]) <= COVERAGE[1]


def test_coverage_of_paired_differences():
    rng = np.random.default_rng(0)

    def pair(images: int) -> tuple[MeanIoU, MeanIoU]:
        difficulty = rng.uniform(0.6, 1, (images, 1))
        return tuple(simulated_segmentor(rng, images, quality, difficulty) for quality in (0.82, 0.8))

    first, second = pair(POPULATION)
    truth = score(first) - score(second)
    found = [paired_difference(*pair(IMAGES), redraws=400, seed=seed) for seed in range(1000)]
    assert COVERAGE[0] <= np.mean([i.low <= truth <= i.high for i in found]) <= COVERAGE[1]


def coverage_of_ap(*, repeats: int, redraws: int) -> float:
    rng = np.random.default_rng(0)
    truth = score(simulated_detector(rng, POPULATION))
    found = [interval(simulated_detector(rng, IMAGES), redraws=redraws, seed=seed) for seed in range(repeats)]
    return np.mean([i.low <= truth <= i.high for i in found])


def test_coverage_of_ap_in_few_draws():
    assert 0.88 <= coverage_of_ap(repeats=100, redraws=200) <= 0.99


@pytest.mark.slow
def test_coverage_of_ap():
    assert COVERAGE[0] <= coverage_of_ap(repeats=1000, redraws=1000) <= COVERAGE[1]
