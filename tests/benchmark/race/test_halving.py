"""Which runs of a race go on: answers by hand, the bound on the cost, independence of the order of arrival."""

import random

import pytest

from hybrid_backbones.benchmark.race.halving import BUDGET, FAILED, Halving, replay

RUNGS = (10, 30, 90)


def curves(*finals: float) -> list[dict[int, float]]:
    """Of candidates whose ranking never changes."""
    return [{rung: final * rung / 90 for rung in RUNGS} for final in finals]


def test_a_third_goes_on_at_every_rung():
    """Nine of ascending quality: three at the second rung, one at the end, and one ahead of each that was in vain."""
    race = replay(curves(1, 2, 3, 4, 5, 6, 7, 8, 9), RUNGS)
    assert Halving(9, RUNGS).ahead == 1
    # The third is the best of the first three; at the second rung it is then the first of four, which promotes nobody.
    assert race == (type(race))(survivor=8, finished=(8,), cost=9 * 10 + 4 * 20 + 1 * 60)


def test_promotion_ahead_of_a_complete_rung():
    halving = Halving(12, RUNGS)
    assert halving.ahead == 1
    first_three = {0: 5.0, 1: 9.0, 2: 7.0}
    assert halving.entered([first_three, {}, {}]) == [list(range(12)), [1], []]
    # Arrival counts in the order of the list: without the third, the others decide nothing.
    assert halving.entered([{0: 5.0, 1: 9.0, 3: 1.0, 4: 1.0}, {}, {}])[1] == []
    everything = first_three | {n: float(n) for n in range(3, 12)}
    # The one ahead is among the four best, before 9, of the same score.
    assert halving.entered([everything, {}, {}])[1] == [1, 11, 10, 9]


def test_plain_halving_where_the_budget_leaves_nothing():
    halving = Halving(3, RUNGS)
    assert halving.ahead == 0
    assert halving.entered([{0: 1.0, 1: 3.0}, {}, {}])[1] == []
    assert halving.entered([{0: 1.0, 1: 3.0, 2: 2.0}, {1: 4.0}, {}]) == [[0, 1, 2], [1], [1]]


def test_failed_runs_never_go_on():
    halving = Halving(3, RUNGS)
    assert halving.entered([{0: FAILED, 1: 1.0, 2: FAILED}, {}, {}])[1] == [1]
    assert halving.entered([dict.fromkeys(range(3), FAILED), {}, {}]) == [[0, 1, 2], [], []]


@pytest.mark.parametrize('candidates', range(12, 18))
def test_at_most_forty_percent_of_the_full_sweep(candidates):
    """Also of runs that are listed from the worst to the best, each of which looks promising."""
    chance = random.Random(candidates)
    orders = [list(range(candidates))] + [chance.sample(range(candidates), candidates) for _ in range(200)]
    for order in orders:
        noisy = [{rung: score + chance.gauss(0, 90 / rung) for rung in RUNGS} for score in order]
        for race in (replay(curves(*order), RUNGS), replay(noisy, RUNGS)):
            assert race.cost <= BUDGET * candidates * 90
            assert race.finished
    assert replay(curves(*orders[0]), RUNGS).survivor == candidates - 1


def test_what_goes_on_does_not_depend_on_who_is_first():
    """Scores arrive in any order, as runs are fast or slow, killed and repeated: nothing that was decided changes."""
    for seed in range(50):
        chance = random.Random(seed)
        halving = Halving(14, RUNGS)
        truth = [{n: chance.random() for n in range(14)} for _ in RUNGS]
        expected = halving.entered(truth)
        known: list[dict[int, float]] = [{}, {}, {}]
        before: list[list[int]] = [[], [], []]
        while running := [(k, n) for k, at in enumerate(halving.entered(known)) for n in at if n not in known[k]]:
            rung, candidate = chance.choice(running)
            known[rung][candidate] = truth[rung][candidate]
            entered = halving.entered(known)
            assert all(new[: len(old)] == old for old, new in zip(before, entered, strict=True))
            before = entered
        assert entered == expected
        assert [len(at) for at in known] == [len(at) for at in expected]  # and nothing else was run


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (((30, 10, 90),), 'positive positions that ascend'),
        (((0, 90),), 'positive positions that ascend'),
        (((10, 90), 1), 'eta=1: one of eta runs is promoted'),
    ],
)
def test_impossible_rules_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        Halving(3, *arguments)


def test_curve_without_a_rung_is_an_error():
    with pytest.raises(ValueError, match=r'curve 1 has no score at \[10\], only at \[30, 90\]'):
        replay([{10: 1.0, 90: 2.0}, {30: 1.0, 90: 2.0}], (10, 90))
