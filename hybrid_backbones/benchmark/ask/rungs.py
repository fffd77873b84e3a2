"""The rungs of the ladder: measurements that give every candidate a score with its redraws over images."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ..intervals import Interval, PerImage, interval_of_redraws, redraw
from ..probes import FeaturesError, Subject, compute_features, linear_probe, probe_detection, task_key
from .question import Question


@dataclass(frozen=True)
class Score:
    """A candidate's score on a rung.

    Attributes:
        key: Digest of what it depends on; a stored score with another key does not count.
        value: Between 0 and 1.
        redraws: Values in the same redraws of the same images for every candidate, so that differences are paired.
        images: How many there are.
        seconds: Wall-clock time that it took.
    """

    key: str
    value: float
    redraws: list[float]
    images: int
    seconds: float

    @property
    def interval(self) -> Interval:
        return interval_of_redraws(self.value, np.array(self.redraws))

    def minus(self, other: 'Score') -> Interval:
        """The difference with its interval."""
        return interval_of_redraws(self.value - other.value, np.array(self.redraws) - np.array(other.redraws))


class Rung(Protocol):
    """A measurement.

    Attributes:
        name: Key in `ask.json`.
        description: What is measured, for the answer.
        next_step: What is worth doing where this rung cannot tell.
    """

    name: str
    description: str
    next_step: str

    def key(self, question: Question, candidate: Subject) -> str:
        """Digest of everything that the score depends on."""

    def score(self, question: Question, candidate: Subject, folder: Path) -> Score:
        """Measure a candidate; `folder` is the results folder."""


class FrozenProbes:
    """Linear heads on frozen features, see :mod:`hybrid_backbones.benchmark.probes`."""

    name = 'probes'
    description = 'linear heads on frozen features'
    next_step = 'training them: hybrid-backbones transfer run'

    def key(self, question: Question, candidate: Subject) -> str:
        return task_key(question.cfg, candidate)

    def score(self, question: Question, candidate: Subject, folder: Path) -> Score:
        start = time.monotonic()
        train, val = (
            compute_features(question.cfg, split, candidate, folder / 'features') for split in ('train', 'val')
        )
        if question.is_segmentation:
            metric: PerImage = linear_probe(train, val)
        else:
            metric = probe_detection(train, val).boxes
        return _scored(metric, self.key(question, candidate), start)


def _scored(metric: PerImage, key: str, start: float) -> Score:
    images = len(metric.images)
    value = float(metric.scores(np.ones((1, images), np.int64))[0])
    if np.isnan(value):
        raise FeaturesError(f'no labels in {images} validation images, expected a split with annotations to score')
    redraws = metric.scores(redraw(images)).tolist()
    return Score(key, value, redraws, images, time.monotonic() - start)


def climb(
    rung: Rung, question: Question, known: dict[str, Score], folder: Path, deadline: float
) -> Iterator[tuple[str, Score]]:
    """Scores of the candidates one after the other, known ones first, as long as the next would be done in time.

    Args:
        rung: What is measured.
        question: With the candidates.
        known: Scores of an earlier call.
        folder: Results folder.
        deadline: By `time.monotonic()`.
    """
    keys = {label: rung.key(question, subject) for label, subject in question.candidates.items()}
    valid = {label: known[label] for label, key in keys.items() if label in known and known[label].key == key}
    yield from valid.items()
    longest = max((score.seconds for score in valid.values()), default=0.0)
    for label, subject in question.candidates.items():
        if label in valid:
            continue
        if time.monotonic() + longest >= deadline:
            return
        score = rung.score(question, subject, folder)
        longest = max(longest, score.seconds)
        yield label, score
