"""Fingerprints of the same run, computed under other conditions, agree; those of other runs and edited ones do not.

`fingerprints.json` has four runs of 20 iterations on `shapes` (Mask R-CNN and UperNet, two backbones), each computed
with one thread, with two, and with all initial weights multiplied by `1 + 1e-6 N(0, 1)`, more than what another
processor's rounding changes.
"""

import copy
import json
import random
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest

from hybrid_backbones.benchmark.fingerprints import differences

RUNS: dict[str, list[dict]] = json.loads((Path(__file__).parent / 'fingerprints.json').read_text())
NUMBER = 100


def of_other_machines() -> Iterator[tuple[dict, dict]]:
    """The measured pairs, then pairs whose deviations are a random share of measured ones, with random signs."""
    pairs = [pair for found in RUNS.values() for pair in permutations(found, 2)]
    yield from pairs
    chance = random.Random(0)
    while True:
        first, second = chance.choice(pairs)
        yield first, _between(first, second, chance)


def _between(first: dict, second: dict, chance: random.Random) -> dict:
    mixed = copy.deepcopy(first)
    for key in ('losses', 'confidences'):
        mixed[key] = [a + chance.uniform(-1, 1) * (b - a) for a, b in zip(first[key], second[key], strict=True)]
    return mixed


def edited() -> Iterator[tuple[str, dict, dict]]:
    """Fingerprints computed again under other conditions, and edited ones: what was edited, found, recorded."""
    chance = random.Random(1)
    names = list(RUNS)
    while True:
        for what, edit in EDITS.items():
            name = chance.choice(names)
            found, recorded = chance.sample(RUNS[name], 2)
            other = RUNS[chance.choice([n for n in names if n != name])][0]
            recorded = copy.deepcopy(recorded)
            edit(recorded, other, chance)
            yield what, found, recorded


def _scale(key: str, low: float, high: float):
    """Multiply a number, or each of a list, by the same factor, up or down."""

    def edit(recorded: dict, other: dict, chance: random.Random) -> None:
        factor = 1 + chance.choice([-1, 1]) * chance.uniform(low, high)
        value = recorded[key]
        recorded[key] = [x * factor for x in value] if isinstance(value, list) else round(value * factor)

    return edit


def _of_other(*keys: str):
    def edit(recorded: dict, other: dict, chance: random.Random) -> None:
        recorded.update({key: other[key] for key in keys})

    return edit


def _one_loss(recorded: dict, other: dict, chance: random.Random) -> None:
    recorded['losses'][chance.randrange(20)] *= 1 + chance.choice([-1, 1]) * chance.uniform(0.5, 0.9)


def _one_iteration_later(recorded: dict, other: dict, chance: random.Random) -> None:
    recorded['losses'] = [*recorded['losses'][1:], recorded['losses'][-1]]


def _add_to_confidences(recorded: dict, other: dict, chance: random.Random) -> None:
    recorded['confidences'] = [x + chance.uniform(0.2, 0.4) for x in recorded['confidences']]


def _cut(recorded: dict, other: dict, chance: random.Random) -> None:
    recorded['losses'].pop()


EDITS = {
    'parameters': _scale('parameters', 1e-6, 0.01),
    'MACs': _scale('macs', 1e-6, 0.01),
    'losses': _scale('losses', 0.002, 0.1),
    'one loss': _one_loss,
    'losses of another run': _of_other('losses'),
    'losses one iteration later': _one_iteration_later,
    'a loss less': _cut,
    'all of another run': _of_other('parameters', 'macs', 'losses', 'confidences'),
    'confidences': _add_to_confidences,
}


def test_fingerprints_of_other_machines_are_accepted():
    for _, (found, recorded) in zip(range(NUMBER), of_other_machines(), strict=False):
        assert differences(found, recorded) == []


def test_edited_fingerprints_are_rejected():
    for _, (what, found, recorded) in zip(range(NUMBER), edited(), strict=False):
        assert differences(found, recorded), what


def test_runs_of_a_gpu_are_not_compared_on_a_cpu():
    found = next(iter(RUNS.values()))[0]
    (problem,) = differences(found, found | dict(device='cuda'))
    assert problem == 'losses are of a cuda device and cannot be compared on cpu'


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_low_precision_has_wider_tolerances(precision):
    found = next(iter(RUNS.values()))[0]
    recorded = found | dict(losses=[x * 1.005 for x in found['losses']])
    assert differences(found, recorded)
    assert differences(found, recorded, precision) == []
