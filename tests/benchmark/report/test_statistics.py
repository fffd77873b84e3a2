import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hybrid_backbones.benchmark.report.statistics import (
    deviation,
    half_width,
    interval,
    pareto_front,
    pooled_variance,
    rank_correlations,
    z_scores,
)


@pytest.mark.parametrize(
    ('points', 'front'),
    [
        ([], []),
        ([(3, 1)], [0]),
        ([(3, 3), (1, 1), (2, 2)], [1, 2, 0]),
        ([(1, 5), (2, 4), (3, 6)], [0, 2]),
        # Equal points are kept together; at equal cost the better score counts, at equal score the lower cost.
        ([(1, 1), (1, 2), (2, 2), (1, 2)], [1, 3]),
    ],
)
def test_pareto_front(points, front):
    assert pareto_front(points) == front


def test_variance_is_pooled_by_degrees_of_freedom():
    assert pooled_variance([[1.0, 3.0], [5.0], [0.0, 3.0, 6.0]]) == (pytest.approx((2 + 2 * 9) / 3), 3)
    assert pooled_variance([[1.0], [2.0]]) == (0, 0)


def test_half_width_is_between_those_of_the_normal_and_of_students_distribution():
    assert half_width(4.0, 0.0, 0) == pytest.approx(2 * stats.norm.ppf(0.975))
    assert half_width(0.0, 4.0, 3) == pytest.approx(2 * stats.t.ppf(0.975, 3))
    assert 2 * stats.norm.ppf(0.975) < half_width(2.0, 2.0, 3) < 2 * stats.t.ppf(0.975, 3)


def test_z_scores_are_in_population_standard_deviations():
    scores = pd.DataFrame(dict(x=[1.0, 2.0, 3.0, None], equal=7.0, few=[1.0, 2.0, None, None]), index=list('abcd'))
    z = z_scores(scores)
    assert list(z) == ['x', 'equal']
    assert z['x'].dropna().to_dict() == pytest.approx({'a': -math.sqrt(1.5), 'b': 0, 'c': math.sqrt(1.5)})
    assert set(z['equal']) == {0}


def test_rank_correlations_are_spearmans_over_common_rows():
    generator = np.random.default_rng(0)
    # Rounded for ties.
    scores = pd.DataFrame(generator.normal(size=(12, 3)).round(), columns=list('abc'))
    scores.iloc[:3, 0] = scores.iloc[-2:, 1] = np.nan
    rho, numbers = rank_correlations(scores)
    common = scores[['a', 'b']].dropna()
    assert rho.loc['a', 'b'] == pytest.approx(stats.spearmanr(common['a'], common['b']).statistic)
    assert numbers.loc['a', 'b'] == len(common) == 7
    assert numbers.loc['b', 'c'] == 10


def test_rank_correlations_of_few_or_equal_scores_are_unknown():
    scores = pd.DataFrame(dict(a=[1.0, 2, 3, 4], b=[1.0, 2, 3, None], equal=1.0))
    rho, numbers = rank_correlations(scores)
    assert np.isnan(rho.loc['a', 'b']) and numbers.loc['a', 'b'] == 3
    assert np.isnan(rho.loc['a', 'equal']) and numbers.loc['a', 'equal'] == 4


def test_deviation_is_of_a_sample():
    assert deviation([1.0, 3.0]) == pytest.approx(math.sqrt(2))
    assert deviation([1.0]) is None


def test_interval_is_by_students_t_distribution():
    # The 97.5 % quantile for two degrees of freedom is 4.303.
    assert interval([1.0, 2.0, 3.0]) == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    assert interval([1.0]) is None
