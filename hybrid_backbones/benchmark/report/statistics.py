"""Statistics of a report: Pareto fronts, variances, confidence intervals, z-scores and rank correlations."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

# With two backbones, one is always one standard deviation above the mean and one below.
MIN_FOR_Z = 3
MIN_FOR_CORRELATION = 4
CONFIDENCE = 0.95


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (cost, score) pairs that no other pair dominates, by rising cost; equal pairs are all kept."""
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[i][1] > points[front[-1]][1] or points[i] == points[front[-1]]:
            front.append(i)
    return front


def deviation(values: Sequence[float]) -> float | None:
    """Standard deviation of a sample; None for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def interval(values: Sequence[float]) -> float | None:
    """Half width of the mean's confidence interval, by Student's t distribution; None for a single value."""
    if len(values) < 2:
        return None
    return float(stats.sem(values) * stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))


def pooled_variance(samples: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Variance within samples, pooled over them, and its degrees of freedom; (0, 0) for samples of one value."""
    freedom = sum(len(values) - 1 for values in samples)
    if not freedom:
        return 0.0, 0
    return sum(
        (len(values) - 1) * float(np.var(values, ddof=1)) for values in samples if len(values) > 1
    ) / freedom, freedom


def half_width(exact: float, estimated: float, freedom: int) -> float:
    """Half width of the confidence interval of a normal value whose variance is a sum of two.

    Args:
        exact: A variance that is known.
        estimated: A variance that was estimated with `freedom` degrees of freedom; those of the sum are by Welch and
            Satterthwaite.
    """
    total = exact + estimated
    together = freedom * (total / estimated) ** 2 if estimated else np.inf
    return float(np.sqrt(total) * stats.t.ppf((1 + CONFIDENCE) / 2, together))


def z_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Differences from the mean of each column, in its population standard deviations.

    Columns with fewer than `MIN_FOR_Z` scores are left out; in a column of equal scores all differences are 0.
    """
    kept = scores.loc[:, scores.count() >= MIN_FOR_Z]
    return (kept - kept.mean()) / kept.std(ddof=0).replace(0, 1)


def rank_correlations(scores: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Spearman's rho of every two columns over the rows that both have, and the number of these rows.

    Rho is NaN for fewer than `MIN_FOR_CORRELATION` rows, or if a column has equal scores in all of them.
    """
    present = scores.notna().astype(int)
    return scores.corr(method='spearman', min_periods=MIN_FOR_CORRELATION), present.T @ present
