"""Pareto fronts, z-scores, rank correlations and growth, of plain numbers."""

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

K = TypeVar('K', bound=Hashable)

# Fewer say nothing: of two backbones, one is always one deviation above and one below the mean.
FEWEST_FOR_Z = 3
FEWEST_FOR_CORRELATION = 4


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (cost, score) pairs that no other beats in one without losing in the other, by rising cost.

    Of equal pairs all are on the front.
    """
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[i][1] > points[front[-1]][1] or points[i] == points[front[-1]]:
            front.append(i)
    return front


def z_scores(values: Mapping[K, float]) -> dict[K, float] | None:
    """Deviations from the mean, in (population) standard deviations; None for fewer than three values.

    Values that are all equal deviate by 0.
    """
    if len(values) < FEWEST_FOR_Z:
        return None
    mean, deviation = statistics.fmean(values.values()), statistics.pstdev(values.values())
    return {key: (value - mean) / deviation if deviation else 0.0 for key, value in values.items()}


def rank_correlation(a: Mapping[K, float], b: Mapping[K, float]) -> tuple[float | None, int]:
    """Spearman's rho over the keys that both have, and their number; None: fewer than four, or all equal in one."""
    common = [key for key in a if key in b]
    if len(common) < FEWEST_FOR_CORRELATION:
        return None, len(common)
    ranks = [_ranks([values[key] for key in common]) for values in (a, b)]
    try:
        return statistics.correlation(*ranks), len(common)
    except statistics.StatisticsError:
        return None, len(common)


def growth_exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """`p` of `value ~ size**p`, by least squares on logarithms; None unless there are two sizes."""
    pairs = [(math.log(size), math.log(value)) for size, value in zip(sizes, values, strict=True) if value > 0]
    if len({size for size, _ in pairs}) < 2:
        return None
    return statistics.linear_regression(*zip(*pairs, strict=True)).slope


def deviation(values: Sequence[float]) -> float | None:
    """Standard deviation of a sample; None for a single value."""
    return statistics.stdev(values) if len(values) > 1 else None


def _ranks(values: Sequence[float]) -> list[float]:
    """From 1; equal values share the mean of theirs."""
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) + 1) / 2 for value in values]
