"""Races replayed from the recorded curves of a full sweep: cost, and whether the winner survives.

`docs/results/race/curves.json` has the runs of `configs/transfer/race.yaml`, and which of them a race of seed 0
trained to the end.
"""

import json
import random
import statistics
from pathlib import Path

import pytest

from hybrid_backbones.benchmark.race import replay
from hybrid_backbones.benchmark.race.halving import BUDGET

CURVES = Path(__file__).parents[3] / 'docs' / 'results' / 'race' / 'curves.json'
RUNGS = (6, 18, 54)
END = RUNGS[-1]
Curve = dict[int, float]


@pytest.fixture(scope='module')
def recorded() -> dict[str, dict[int, Curve]]:
    """Of every backbone and seed, mIoU by iteration."""
    found: dict[str, dict[int, Curve]] = {}
    for run in json.loads(CURVES.read_text())['runs']:
        found.setdefault(run['backbone'], {})[run['seed']] = {int(step): value for step, value in run['mIoU'].items()}
    return found


def test_winner_survives_in_19_of_20_seeds(recorded):
    """Or a run that is not distinguished from it: they differ by less than two runs of one backbone may.

    A seed decides about the order of the backbones, and which of its recorded runs each takes part with.
    """
    repeated = [[curve[END] for curve in runs.values()] for runs in recorded.values() if len(runs) > 1]
    indistinct = 1.96 * (2 * statistics.mean(map(statistics.variance, repeated))) ** 0.5
    kept, shares = 0, []
    for seed in range(20):
        chance = random.Random(seed)
        runs = [chance.choice(list(seeds.values())) for seeds in chance.sample(list(recorded.values()), len(recorded))]
        race = replay(runs, RUNGS)
        assert race.cost <= BUDGET * len(runs) * END
        good = [run[END] >= max(other[END] for other in runs) - indistinct for run in runs]
        kept += good[race.survivor]
        shares.append(statistics.mean(good))
    assert kept >= 19
    by_lot = statistics.mean(shares)
    assert 20 * by_lot**19 * (1 - by_lot) + by_lot**20 < 0.01  # that a run drawn by lot does the same


def test_race_that_was_run_agrees_with_its_replay(recorded):
    race = replay([runs[0] for runs in recorded.values()], RUNGS)
    raced = json.loads(CURVES.read_text())['raced']
    names = list(recorded)
    assert {names[n] for n in race.finished} == set(raced)
    assert names[race.survivor] == raced[0]
