"""Asynchronous successive halving (Li et al., arXiv 1810.05934), with a bound on its cost; computes, and runs nothing.

All candidates train to the first rung, a position early in their schedule. A share 1/eta of those at a rung, the best
ones by their score there, trains on to the next, and the last rung is the end of the schedule. Nobody waits until a
rung is complete: of the first m candidates there, the best m // eta go on at once. Differences from the paper:

- The number of candidates is known. When a rung is complete, its best are promoted as plain halving does it, so that a
  candidate that arrives last loses nothing.
- Arrival counts in the order in which candidates entered a rung (the first one: their order in the list), not in which
  they finished it. What is promoted is thereby a function of the scores alone: number of processes, their speed, and
  kills change nothing.
- The number of promotions ahead of a rung's completion, which may turn out to be in vain, is limited so that at most
  :data:`BUDGET` of the cost of training all candidates is spent.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile

# Share of the cost of the full sweep that promotions ahead of a complete rung may raise the cost to.
BUDGET = 0.4
# Of a candidate that failed: it never goes on.
FAILED = -math.inf

# Scores at one rung, by candidate; larger is better.
Scores = Mapping[int, float]


@dataclass(frozen=True)
class Halving:
    """The rules of a race.

    Args:
        candidates: Number of them.
        rungs: Positions in the schedule, in iterations or epochs, ascending; the last is the end.
        eta: One of so many is promoted.

    Raises:
        ValueError: Rungs that do not ascend, or eta below 2.
    """

    candidates: int
    rungs: tuple[int, ...]
    eta: int = 3

    def __post_init__(self) -> None:
        if self.eta < 2:
            raise ValueError(f'eta={self.eta}: one of eta runs is promoted; give 2 or more')
        if any(after <= before for before, after in zip((0, *self.rungs), self.rungs, strict=False)):
            raise ValueError(f'rungs {self.rungs}: give positive positions that ascend to the end of the schedule')

    @property
    def full_cost(self) -> int:
        """Iterations (or epochs) of all candidates together, trained to the end."""
        return self.candidates * self.rungs[-1]

    def worst_cost(self, ahead: int) -> int:
        """Iterations of a race in which `ahead` promotions at every rung were in vain."""
        entries = [self.candidates]
        for _ in self.rungs[1:]:
            entries.append(min(entries[-1], self._quota(entries[-1]) + ahead))
        return self.cost(entries)

    def cost(self, entries: Sequence[int]) -> int:
        """Iterations of a race in which so many candidates entered every rung."""
        starts = (0, *self.rungs[:-1])
        return sum(n * (end - start) for n, start, end in zip(entries, starts, self.rungs, strict=True))

    @cached_property
    def ahead(self) -> int:
        """Promotions at every rung that may precede its completion; 0 where plain halving costs as much as that."""
        within = (n for n in range(self.candidates) if self.worst_cost(n) <= BUDGET * self.full_cost)
        return max(within, default=0)

    def entered(self, scores: Sequence[Scores]) -> list[list[int]]:
        """The candidates that enter every rung, in order, as far as the scores known so far decide it.

        Further scores only ever add to it.

        Args:
            scores: Of every rung, those that are known.
        """
        entered, complete = [list(range(self.candidates))], True
        for at_rung in scores[:-1]:
            known = list(takewhile(at_rung.__contains__, entered[-1]))
            complete = complete and len(known) == len(entered[-1])
            entered.append(self._promoted(known, at_rung, complete))
        return entered

    def _promoted(self, known: Sequence[int], scores: Scores, complete: bool) -> list[int]:
        promoted: list[int] = []
        for m in range(self.eta, len(known) + 1):
            best = [n for n in _ranked(known[:m], scores)[: m // self.eta] if n not in promoted]
            promoted += best[: self.ahead - len(promoted)]
        if complete:
            promoted += [n for n in _ranked(known, scores)[: self._quota(len(known))] if n not in promoted]
        return promoted

    def _quota(self, entries: int) -> int:
        return max(1, entries // self.eta)


def _ranked(candidates: Sequence[int], scores: Scores) -> list[int]:
    """Best first, without those that failed; of equal ones, the one that came first."""
    running = [n for n in candidates if scores[n] > FAILED]
    return sorted(running, key=lambda n: -scores[n])


@dataclass(frozen=True)
class Outcome:
    """Of a race over recorded curves.

    Args:
        survivor: The best of the candidates that reached the end.
        finished: All that reached the end.
        cost: Iterations (or epochs) of all candidates together.
    """

    survivor: int
    finished: tuple[int, ...]
    cost: int


def replay(curves: Sequence[Mapping[int, float]], rungs: Sequence[int], eta: int = 3) -> Outcome:
    """Race runs of which everything is known.

    Args:
        curves: Of every candidate, its score by position; positions that are no rungs are not looked at.
        rungs: As of :class:`Halving`.

    Raises:
        ValueError: A curve has no score at a rung.
    """
    for n, curve in enumerate(curves):
        if missing := [rung for rung in rungs if rung not in curve]:
            raise ValueError(f'curve {n} has no score at {missing}, only at {sorted(curve)}; choose rungs among these')
    halving = Halving(len(curves), tuple(rungs), eta)
    entered = halving.entered([{n: curve[rung] for n, curve in enumerate(curves)} for rung in rungs])
    finished = entered[-1]
    survivor = max(finished, key=lambda n: curves[n][rungs[-1]])
    return Outcome(survivor, tuple(finished), halving.cost([len(runs) for runs in entered]))
