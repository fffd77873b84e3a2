"""Races replayed from the recorded curves of a full sweep: cost, and whether the winner survives."""

import random
import statistics
from itertools import product
from pathlib import Path

import pytest

from hybrid_backbones.benchmark.race import replay
from hybrid_backbones.benchmark.race.halving import BUDGET
from hybrid_backbones.benchmark.race.running import score
from hybrid_backbones.benchmark.rows import Row, read

RESULTS = Path(__file__).parents[3] / 'docs' / 'results'
RUNGS = (10, 30, 90)
END = RUNGS[-1]


@pytest.fixture(scope='module')
def recorded() -> list[list[dict[int, float]]]:
    """Of every backbone and seed, mIoU by iteration."""
    runs: dict[str, list[Row]] = {}
    for row in read(RESULTS / 'race'):
        if row['record'] == 'run':
            runs.setdefault(row['identity']['backbone'], []).append(row)
    return [[dict(row['curves']['mIoU']) for row in rows] for rows in runs.values()]


def drawn(recorded: list[list[dict[int, float]]], seed: int) -> list[dict[int, float]]:
    """The backbones in an order of their own, and of each a recorded run."""
    chance = random.Random(seed)
    return [chance.choice(runs) for runs in chance.sample(recorded, len(recorded))]


def test_winner_survives_in_19_of_20_seeds(recorded):
    """Or a run that is not distinguished from it: they differ by less than two runs of one backbone may."""
    variance = statistics.mean(statistics.variance(run[END] for run in runs) for runs in recorded)
    indistinct = 1.96 * (2 * variance) ** 0.5
    kept = 0
    for seed in range(20):
        curves = drawn(recorded, seed)
        race = replay(curves, RUNGS)
        assert race.cost <= BUDGET * len(curves) * END
        best = max(curve[END] for curve in curves)
        kept += curves[race.survivor][END] >= best - indistinct
    assert kept >= 19
    # Which says something: of all runs, fewer than half are that good.
    finals = [run[END] for runs in recorded for run in runs]
    assert statistics.mean(final >= max(finals) - indistinct for final in finals) < 0.5


def test_a_race_that_was_run_agrees_with_its_replay(recorded):
    raced = {row['identity']['backbone']: row for row in read(RESULTS / 'race' / 'live') if row['state'] == 'finished'}
    curves = [runs[0] for runs in recorded]
    names = list(dict.fromkeys(row['identity']['backbone'] for row in read(RESULTS / 'race') if row['record'] == 'run'))
    race = replay(curves, RUNGS)
    assert {names[n] for n in race.finished} == raced.keys()
    assert max(raced, key=lambda name: score(raced[name]['metrics'])) == names[race.survivor]
