"""The beginning of a report: for each setting, which backbone is best, and which are not distinguished from it."""

from collections import Counter
from collections.abc import Sequence

from .comparison import Comparison
from .grouping import LEAST_SCORE, Group, Results
from .tables import metric_title

# More names are counted, not listed.
_MAX_NAMES = 6


def answers(results: Results) -> list[str]:
    """A sentence or two for each setting with a ranking, and one on the settings that are left out."""
    found = [f'{setting.label}: {_answer(Comparison(groups))}' for setting, groups in results.groups.items()]
    if left_out := [setting.label for setting in results.without_scores]:
        found.append(f'Left out of rankings and pictures, with scores below {LEAST_SCORE} %: {"; ".join(left_out)}.')
    return found


def _answer(compared: Comparison) -> str:
    best, *others = compared.groups
    if not others:
        return f'only {best.label} was measured ({_score(best)}).'
    if len(compared.known) < 2:
        highest = f'The highest {metric_title(best.metric)} is that of {best.label} ({best.mean:.1f} %).'
        return f'of these {len(compared.groups)}, cannot tell which is best ({_reasons(compared)}). {highest}'
    best, *others = compared.known
    text = f'of these {len(compared.known)}, {best.label} ({_score(best)})'
    if tied := [group.label for group in others if not compared.distinguished(best, group)]:
        verb = 'is' if len(tied) == 1 else 'are'
        text += f', or {_listed(tied)}, which {verb} not distinguished from it'
    if unknown := len(compared.reasons):
        number = f'{unknown} other{"s" * (unknown > 1)}'
        text += f'. Cannot tell for {number} ({_reasons(compared)})'
    return f'{text}.'


def _score(group: Group) -> str:
    return f'{metric_title(group.metric)} {group.mean:.1f} %'


def _reasons(compared: Comparison) -> str:
    """`one seed each`, or `one seed: 3, no per-image results: 2`."""
    counts = Counter(compared.reasons.values())
    if len(counts) == 1:
        (reason,) = counts
        return f'{reason} each' if reason == 'one seed' and counts[reason] > 1 else reason
    return ', '.join(f'{reason}: {number}' for reason, number in counts.most_common())


def _listed(names: Sequence[str]) -> str:
    """`A`, `A and B`, `A, B and C`."""
    shown = list(names[:_MAX_NAMES])
    if hidden := len(names) - len(shown):
        shown.append(f'{hidden} other{"s" * (hidden > 1)}')
    return ' and '.join(filter(None, [', '.join(shown[:-1]), shown[-1]]))
