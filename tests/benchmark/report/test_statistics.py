import math

import pytest

from hybrid_backbones.benchmark.report.statistics import (
    deviation,
    growth_exponent,
    pareto_front,
    rank_correlation,
    z_scores,
)


@pytest.mark.parametrize(
    ('points', 'front'),
    [
        ([], []),
        ([(3, 1)], [0]),
        ([(3, 3), (1, 1), (2, 2)], [1, 2, 0]),
        ([(1, 5), (2, 4), (3, 6)], [0, 2]),
        # Of one cost the better, of one score the cheaper; equal ones together.
        ([(1, 1), (1, 2), (2, 2), (1, 2)], [1, 3]),
    ],
)
def test_pareto_front(points, front):
    assert pareto_front(points) == front


def test_z_scores_have_mean_0_and_deviation_1():
    z = z_scores({'a': 1.0, 'b': 2.0, 'c': 3.0})
    assert z == pytest.approx({'a': -math.sqrt(1.5), 'b': 0, 'c': math.sqrt(1.5)})
    assert z_scores({'a': 7.0, 'b': 7.0, 'c': 7.0}) == {'a': 0, 'b': 0, 'c': 0}
    assert z_scores({'a': 1.0, 'b': 2.0}) is None


def test_rank_correlation_is_spearmans():
    a = dict(zip('abcde', [1, 2, 3, 4, 5], strict=True))
    assert rank_correlation(a, {key: value**3 for key, value in a.items()}) == (pytest.approx(1), 5)
    assert rank_correlation(a, {key: -value for key, value in a.items()}) == (pytest.approx(-1), 5)
    # 1 - 6 * sum(d^2) / (n (n^2 - 1)), d of two neighbours swapped
    b = dict(a, a=2, b=1)
    assert rank_correlation(a, b) == (pytest.approx(1 - 6 * 2 / (5 * 24)), 5)


def test_rank_correlation_with_ties_is_pearsons_of_mean_ranks():
    a, b = dict(a=1, b=1, c=2, d=3), dict(a=1, b=2, c=3, d=4)
    # ranks 1.5, 1.5, 3, 4 against 1, 2, 3, 4
    assert rank_correlation(a, b)[0] == pytest.approx(4.5 / math.sqrt(4.5 * 5))


def test_rank_correlation_of_too_few_or_equal_values_is_none():
    a = dict(a=1.0, b=2.0, c=3.0, d=4.0)
    assert rank_correlation(a, dict(a=1.0, b=2.0, c=3.0, z=4.0)) == (None, 3)
    assert rank_correlation(a, dict.fromkeys(a, 1.0)) == (None, 4)


def test_growth_exponent():
    sizes = [224**2, 512**2, 1024**2]
    assert growth_exponent(sizes, [3e-6 * size**1.5 for size in sizes]) == pytest.approx(1.5)
    assert growth_exponent([100, 100], [1, 2]) is None
    assert growth_exponent([100, 200], [0, 2]) is None


def test_deviation_is_of_a_sample():
    assert deviation([1.0, 3.0]) == pytest.approx(math.sqrt(2))
    assert deviation([1.0]) is None
