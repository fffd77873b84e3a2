"""LogME against the figures of its authors' code."""

import numpy as np
import pytest

from hybrid_backbones.benchmark.probes import logme

# Samples, dimensions, classes, seed, and what LogME().fit of github.com/thuml/LogME gives, run without numba.
OFFICIAL = [
    (60, 8, 3, 0, -0.48220460626289646),
    (200, 16, 5, 1, 0.02989321877418604),
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


@pytest.mark.parametrize(
    'samples, dimensions, classes, seed, expected', [(12, 30, 2, 2, -0.3687), (50, 200, 3, 6, 0.3793)]
)
def test_more_dimensions_than_samples_equal_the_official_code_of_the_icml_version(
    samples, dimensions, classes, seed, expected
):
    # Its iteration stops at a change of 1e-2 in place of 1e-3.
    assert logme(*_samples(samples, dimensions, classes, seed)) == pytest.approx(expected, abs=4e-3)


def test_dead_and_repeated_channels_do_not_change_the_score():
    features, labels = _samples(200, 16, 5, 1)
    expected = logme(features, labels)
    assert logme(np.hstack([features, 0 * features]), labels) == pytest.approx(expected, abs=1e-9)
    # Repeating doubles the variances, which alpha makes up for except for the constant in its denominator.
    assert logme(np.hstack([features, features]), labels) == pytest.approx(expected, abs=1e-6)


def test_noise_does_not_gain_by_dimensions():
    noise, labels = np.random.default_rng(9).normal(size=(200, 300)), _samples(200, 16, 5, 1)[1]
    assert logme(noise, labels) == pytest.approx(logme(noise[:, :150], labels), abs=0.02)


def test_absent_classes_are_left_out():
    features, labels = _samples(60, 8, 3, 0)
    assert logme(features, labels * 7) == logme(features, labels)


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda f, y: (f, 0 * y), 'got 1 class in 60 samples'),
        (lambda f, y: (f, y[:-1]), r'got \(60, 8\) and \(59,\)'),
        (lambda f, y: (f * np.nan, y), 'NaN or infinite'),
        (lambda f, y: (0 * f, y), 'all features are zero'),
    ],
)
def test_unusable_input_is_an_error(change, message):
    with pytest.raises(ValueError, match=message):
        logme(*change(*_samples(60, 8, 3, 0)))
