"""Which candidates of a setting are distinguished: intervals of differences over images and seeds."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from .grouping import Group
from .statistics import CONFIDENCE, half_width, pooled_variance

ONE_SEED = 'one seed'
NO_IMAGES = 'no per-image results'
OTHER_IMAGES = 'other images'


class Comparison:
    """The groups of a setting, best first, and their differences.

    Two groups are distinguished if the 95 % interval of their difference excludes 0. Its variance is the sum of that
    over images, by the bootstrap on the same draws for both and with scores averaged over the seeds, and of that over
    seeds, which is pooled over the groups.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = list(groups)
        self.seeds_variance, self._freedom = pooled_variance([group.values for group in groups])

    @cached_property
    def reasons(self) -> dict[str, str]:
        """Why a group cannot be compared, by its label."""
        found = {group.label: self._reason(group) for group in self.groups}
        return {label: reason for label, reason in found.items() if reason}

    @cached_property
    def known(self) -> list[Group]:
        """Groups that can be compared, best first."""
        return [group for group in self.groups if group.label not in self.reasons]

    def difference(self, first: Group, second: Group) -> tuple[float, float]:
        """`first - second` in points, with the half width of its interval; both are of `known`."""
        over_images = float(np.var(self._redrawn[first.label] - self._redrawn[second.label], ddof=1))
        over_seeds = self.seeds_variance * (1 / len(first.rows) + 1 / len(second.rows))
        return first.mean - second.mean, half_width(over_images, over_seeds, self._freedom)

    def distinguished(self, first: Group, second: Group) -> bool:
        difference, width = self.difference(first, second)
        return abs(difference) > width

    def ranked(self) -> list[tuple[Group, int | None]]:
        """Groups with their ranks: one more than the number of better groups that are distinguished from them."""
        known = self.known if len(self.known) > 1 else []
        ranks = {
            group.label: 1 + sum(self.distinguished(better, group) for better in known[:i])
            for i, group in enumerate(known)
        }
        return [(group, ranks.get(group.label)) for group in self.groups]

    def limits(self, group: Group) -> str | None:
        """The group's interval over images, `12.1 to 14.5`; None without per-image results of all seeds."""
        scores = self._redrawn.get(group.label)
        if scores is None:
            return None
        ends = np.quantile(scores, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) - scores.mean() + group.mean
        low, high = np.clip(ends, 0, 100)
        return f'{low:.1f} to {high:.1f}'

    def behind_best(self, group: Group) -> str | None:
        """Difference from the best of those that can be compared, with its interval."""
        if group.label in self.reasons or group is self.known[0]:
            return None
        difference, width = self.difference(group, self.known[0])
        return f'{difference:.2f} ± {width:.2f}'.replace('-', '−')

    @cached_property
    def images_deviation(self) -> float | None:
        """Standard deviation of a candidate's score over draws of the images, the root mean square over candidates."""
        variances = [float(np.var(scores, ddof=1)) for scores in self._redrawn.values()]
        return float(np.sqrt(np.mean(variances))) if variances else None

    @property
    def seeds_deviation(self) -> float | None:
        """Standard deviation over seeds, pooled over candidates; None if all have one seed."""
        return float(np.sqrt(self.seeds_variance)) if self._freedom else None

    @cached_property
    def _redrawn(self) -> dict[str, np.ndarray]:
        """Scores of redraws by label, of groups with the same images as the first that has some."""
        known = [group for group in self.groups if group.redrawn is not None]
        found = {group.label: group.redrawn for group in known if group.images == known[0].images}
        # A redraw may miss all objects: nobody has a score then.
        undefined = np.isnan(sum(found.values()))
        return {label: scores[~undefined] for label, scores in found.items()}

    def _reason(self, group: Group) -> str | None:
        if len(group.rows) < 2:
            return ONE_SEED
        if group.redrawn is None:
            return NO_IMAGES
        return None if group.label in self._redrawn else OTHER_IMAGES


def noise_floor(compared: Comparison) -> str:
    """What differences between runs of this setting are within chance."""
    parts = []
    if compared.seeds_deviation is not None:
        parts.append(f'{compared.seeds_deviation:.2f} points over seeds')
    if compared.images_deviation is not None:
        parts.append(f'{compared.images_deviation:.2f} points over images')
    return f'Noise floor, the standard deviation of a score: {", ".join(parts)}.' if parts else ''
