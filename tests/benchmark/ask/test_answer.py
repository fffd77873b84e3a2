"""Answers from scores alone."""

import numpy as np
import pytest

from hybrid_backbones.benchmark.ask.answer import answer
from hybrid_backbones.benchmark.ask.prior import Prior
from hybrid_backbones.benchmark.ask.rungs import FrozenProbes, Score, _scored
from hybrid_backbones.benchmark.intervals import MeanIoU
from hybrid_backbones.benchmark.probes import FeaturesError


def test_redraws_without_a_score_do_not_count():
    generator = np.random.default_rng(0)
    shared = generator.normal(0, 0.01, 200)
    shared[generator.random(200) < 0.2] = np.nan
    # The winner is not the first, which is where NumPy finds the maximum of a row of NaN.
    scores = {label: Score('', value, (value + shared).tolist(), 4, 1.0) for label, value in dict(a=0.2, b=0.5).items()}
    found = answer({label: Prior(1, 1, None) for label in scores}, scores, FrozenProbes(), 1.0, 30)
    assert 'b has the highest score in 100% of redraws' in found.text


def test_validation_images_without_labels_are_an_error():
    empty = np.zeros((3, 2), np.int64)
    with pytest.raises(FeaturesError, match='no labels in 3 validation images'):
        _scored(MeanIoU(('a', 'b', 'c'), empty, empty), '', 0.0)
