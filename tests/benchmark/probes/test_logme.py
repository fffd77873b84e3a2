"""LogME against the figures of its authors' code."""

import numpy as np
import pytest

from hybrid_backbones.benchmark.probes import logme

# Samples, dimensions, classes, seed, and what LogME().fit of github.com/thuml/LogME gives, run without numba.
OFFICIAL = [
    (60, 8, 3, 0, -0.48220460626289646),
    (200, 16, 5, 1, 0.02989321877418604),
    (12, 30, 2, 2, 3.8401126953456632),
    (40, 40, 4, 3, 0.04385967978129655),
]


def _samples(samples: int, dimensions: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=samples)
    features = generator.normal(size=(samples, dimensions)) + generator.normal(size=(classes, dimensions))[labels]
    return features, labels


@pytest.mark.parametrize('samples, dimensions, classes, seed, expected', OFFICIAL)
def test_equals_the_official_code(samples, dimensions, classes, seed, expected):
    assert logme(*_samples(samples, dimensions, classes, seed)) == pytest.approx(expected, abs=1e-9)


def test_features_of_the_classes_score_higher_than_noise():
    features, labels = _samples(200, 16, 5, 1)
    assert logme(features, labels) > logme(np.random.default_rng(0).normal(size=features.shape), labels) + 0.1


def test_redundant_dimensions_are_accepted():
    features, labels = _samples(200, 16, 5, 1)
    assert np.isfinite(logme(np.hstack([features, features, 0 * features]), labels))


def test_absent_classes_are_left_out():
    features, labels = _samples(60, 8, 3, 0)
    assert logme(features, labels * 7) == logme(features, labels)


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda f, y: (f, 0 * y), 'got 1 class in 60 samples'),
        (lambda f, y: (f, y[:-1]), r'got \(60, 8\) and \(59,\)'),
        (lambda f, y: (f * np.nan, y), 'NaN or infinite'),
    ],
)
def test_unusable_input_is_an_error(change, message):
    with pytest.raises(ValueError, match=message):
        logme(*change(*_samples(60, 8, 3, 0)))
