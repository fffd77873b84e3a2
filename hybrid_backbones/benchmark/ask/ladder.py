"""Prior and rungs in turn, with everything measured kept in `ask.json` of the results folder."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..._files import write_whole
from ..rows import ResultsError
from .answer import Answer, answer
from .prior import Prior, prior
from .question import Question
from .rungs import FrozenProbes, Score, climb

FILE = 'ask.json'
_VERSION = 1


def ask(question: Question, results: Path, minutes: float, report: Callable[[str], None] = print) -> Answer:
    """Measure as long as there is time, and answer.

    Args:
        question: What is asked.
        results: Results folder; what it has from an earlier call is not measured again.
        minutes: Wall-clock time to spend, at most about that.
        report: Takes a line for every candidate.

    Raises:
        ResultsError: `ask.json` is damaged or of another version.
        FeaturesError: The data cannot be probed.
    """
    if minutes <= 0:
        raise ValueError(f'--minutes {minutes:g}: expected a positive number')
    start = time.monotonic()
    rung = FrozenProbes()
    stored = _read(results / FILE)
    priors = prior(question)
    for label, known in priors.items():
        report(f'{label}: {_described(known)}')
    scores: dict[str, Score] = {}
    earlier = {label: Score(**values) for label, values in stored.get(rung.name, {}).items()}
    for label, score in climb(rung, question, earlier, results, start + 60 * minutes):
        scores[label] = score
        _write(results / FILE, priors, {**stored, rung.name: _plain({**earlier, **scores})})
        found = score.interval
        report(f'{label}: {found.value:.3f} [{found.low:.3f}, {found.high:.3f}] in {score.seconds:.0f} s')
    given = answer(priors, scores, rung, (time.monotonic() - start) / 60, minutes)
    _write(results / FILE, priors, {**stored, rung.name: _plain({**earlier, **scores}), 'answer': asdict(given)})
    return given


def _described(known: Prior) -> str:
    published = known.published or 'nothing published'
    return f'{known.parameters / 1e6:.1f} M parameters, {known.macs / 1e9:.1f} G multiply-adds, {published}'


def _plain(scores: dict[str, Score]) -> dict[str, Any]:
    return {label: asdict(score) for label, score in scores.items()}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        stored = json.loads(path.read_text(encoding='utf-8'))
        version = stored.pop('version')
    except (ValueError, KeyError, AttributeError) as error:
        raise ResultsError(f'{path} is damaged ({error}): delete it to measure again') from error
    if version != _VERSION:
        raise ResultsError(f'{path} has version {version}, expected {_VERSION}: delete it or use another --results')
    return stored


def _write(path: Path, priors: dict[str, Prior], content: dict[str, Any]) -> None:
    known = {label: asdict(values) for label, values in priors.items()}
    write_whole(path, json.dumps({**content, 'version': _VERSION, 'prior': known}))
