"""From scores to an answer in words, which says how certain it is and what would change it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .prior import Prior
from .rungs import Rung, Score


@dataclass(frozen=True)
class Answer:
    """An answer.

    Attributes:
        best: The candidate with the highest score; None if fewer than two have one.
        not_distinguished: Others whose paired difference from it has an interval that includes zero.
        text: All of it in words.
    """

    best: str | None
    not_distinguished: tuple[str, ...]
    text: str


def answer(
    priors: Mapping[str, Prior], scores: Mapping[str, Score], rung: Rung, minutes: float, given: float
) -> Answer:
    """The answer of the dearest rung that was climbed.

    Args:
        priors: Of all candidates.
        scores: Of those that were measured.
        rung: Where they come from.
        minutes: Spent.
        given: Minutes that were given.
    """
    spent = f'Spent: {minutes:.1f} of {given:g} minutes.'
    missing = [label for label in priors if label not in scores]
    if len(scores) < 2:
        reason = f'Of these {len(priors)}, cannot tell: {len(scores)} measured by {rung.description} in the time given.'
        return Answer(None, (), f'{reason} What would change it: more time. {spent}')
    best = max(scores, key=lambda label: scores[label].value)
    rivals = [label for label in scores if label != best and not scores[best].minus(scores[label]).excludes_zero]
    rivals.sort(key=lambda label: -scores[label].value)
    parts = [
        f'Of these {len(priors)}: {_choice(best, rivals, scores)}.',
        f'Certainty: {best} has the highest score in {_share_first(best, scores):.0%} of redraws of '
        f'{scores[best].images} images ({rung.description}).',
        f'What would change it: {_change(rivals, missing, rung)}.',
        spent,
    ]
    return Answer(best, tuple(rivals), ' '.join(parts))


def _choice(best: str, rivals: list[str], scores: Mapping[str, Score]) -> str:
    if not rivals:
        return best
    if len(rivals) == len(scores) - 1:
        return f'cannot tell {" from ".join([best, *rivals])}'
    are = 'which is' if len(rivals) == 1 else 'which are'
    return f'{best}, or {" or ".join(rivals)}, {are} not distinguished from it'


def _share_first(best: str, scores: Mapping[str, Score]) -> float:
    redraws = np.array([score.redraws for score in scores.values()])
    # A redraw may miss all objects; no candidate has a score then.
    redraws = redraws[:, ~np.isnan(redraws).any(0)]
    return float((redraws.argmax(0) == list(scores).index(best)).mean())


def _change(rivals: list[str], missing: list[str], rung: Rung) -> str:
    parts = [f'{", ".join(missing)} not measured, for which there was no time'] if missing else []
    if rivals:
        parts += ['more validation images', rung.next_step]
    return '; '.join(parts) or f'fine-tuning, which can reverse the order of frozen features; {rung.next_step}'
