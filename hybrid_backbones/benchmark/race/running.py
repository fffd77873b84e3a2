"""Races between the runs of a sweep, whose whole state is what the results folder has of the runs themselves.

A run pauses at a rung with a checkpoint and its score, `jobs/ID/paused_at_K.json`; a run that reached the end is a
finished row as any other. A race that was killed reads these again and goes on. Backbones of the same setting and seed
race against each other.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ...engine.config import read_config
from ..report.grouping import MAIN_METRICS
from ..rows import Row, describe, read
from ..sweep.jobs import Job
from ..sweep.running import Engine, pause_file
from .halving import FAILED, Halving

# In which the runs of a race differ.
_CANDIDATE = ('backbone', 'options', 'weights_sha256')


@dataclass
class Race:
    """Runs of one setting and seed, and what has become of them.

    Args:
        jobs: The runs, in the order of the spec.
        rules: How many go on at which rungs.
        failed: Ids of those that failed since the race was started.
    """

    jobs: Sequence[Job]
    rules: Halving
    failed: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """`upernet, shapes, 90 iterations, seed 0`."""
        identity = self.jobs[0].identity
        parts = [identity[key] for key in ('framework', 'dataset', 'schedule')]
        return ', '.join([*parts, f'seed {identity["seed"]}', *(['frozen'] if identity['frozen'] else [])])

    def scores(self, results: Path) -> list[dict[int, float]]:
        """Of every rung, the scores of the runs that were there."""
        finished = {row['id']: row for row in read(results) if row['state'] == 'finished'}
        found = [self._scores_of(results, job, finished) for job in self.jobs]
        return [{n: of[rung] for n, of in enumerate(found) if rung in of} for rung in self.rules.rungs]

    def _scores_of(self, results: Path, job: Job, finished: Mapping[str, Row]) -> dict[int, float]:
        files = {rung: pause_file(results, job.id, rung) for rung in self.rules.rungs}
        scores = {rung: score(json.loads(file.read_text())) for rung, file in files.items() if file.exists()}
        if job.id in finished:
            final = score(finished[job.id]['metrics'])
            # Also of a run that `transfer run` trained without pauses.
            return {rung: scores.get(rung, final) for rung in self.rules.rungs}
        if job.id in self.failed:
            return dict.fromkeys(self.rules.rungs, FAILED)  # at all rungs: its place goes to the next one
        return scores

    def due(self, results: Path) -> list[Job]:
        """The runs that are to go on, those ahead first; each with the rung to which it runs."""
        scores = self.scores(results)
        due = []
        for rung, entered, known in zip(self.rules.rungs, self.rules.entered(scores), scores, strict=True):
            due = [self._job_to(rung, n) for n in entered if n not in known] + due
        return due

    def _job_to(self, rung: int, n: int) -> Job:
        job = self.jobs[n]
        return job if rung == self.rules.rungs[-1] else replace(job, task=job.task | dict(until=rung))

    def summary(self, results: Path) -> str:
        """The runs that reached the end, best first, and the share of the full sweep's iterations that this took."""
        scores = self.scores(results)
        entered = self.rules.entered(scores)
        share = self.rules.cost([len(runs) for runs in entered]) / self.rules.full_cost
        lines = [f'{self.name}: {len(self.jobs)} runs took {share:.0%} of the iterations of the full sweep']
        final = {n: score for n, score in scores[-1].items() if score > FAILED}
        for n in sorted(final, key=lambda n: -final[n]):
            lines.append(f'  {final[n]:.2f} {describe(asdict(self.jobs[n]))}')
        if waiting := self.due(results):
            lines.append(f'  not decided yet: {len(waiting)} runs are to go on; the same command continues')
        return '\n'.join(lines)


def score(metrics: Mapping[str, float]) -> float:
    """The metric by which a setting is ranked; 0 where a detector found nothing, and COCO's metrics are undefined."""
    return next((metrics[name] for name in MAIN_METRICS if name in metrics), 0.0)


def races(jobs: Sequence[Job], rungs: Sequence[int] | None = None, eta: int = 3) -> list[Race]:
    """The races between the runs among `jobs`: one per framework, dataset, schedule, seed, and frozen or not.

    Args:
        rungs: Positions in the schedule, before its end, in iterations, or epochs where the schedule counts those; by
            default a ninth and a third of it, for eta 3.

    Raises:
        ValueError: Rungs beyond the end of a schedule, or other impossible rules.
    """
    groups: dict[tuple, list[Job]] = {}
    for job in jobs:
        if job.record == 'run':
            setting = tuple(item for item in job.identity.items() if item[0] not in _CANDIDATE)
            groups.setdefault(setting, []).append(job)
    return [Race(group, Halving(len(group), _rungs(group[0], rungs, eta), eta)) for group in groups.values()]


def _rungs(job: Job, rungs: Sequence[int] | None, eta: int) -> tuple[int, ...]:
    length = schedule_length(job)
    if rungs is None:
        rungs = sorted({max(1, round(length / eta**k)) for k in (2, 1)} - {length})
    return (*rungs, length)


def schedule_length(job: Job) -> int:
    """Iterations of a run's schedule, or epochs where it counts those."""
    cfg = read_config(job.task['config'])
    cfg.merge_from_dict(job.task['options'])
    for key in ('max_iters', 'max_epochs'):
        if cfg.train_cfg.get(key):
            return cfg.train_cfg[key]
    raise ValueError(f'{job.task["config"]}: train_cfg has neither max_iters nor max_epochs, so that it has no rungs')


def run_race(
    results: Path,
    jobs: Sequence[Job],
    engine: Engine,
    slots: int,
    rungs: Sequence[int] | None = None,
    eta: int = 3,
    **options: Any,
) -> dict[str, int]:
    """Race the runs among `jobs`, and print a line as each reaches a rung or its end.

    Args:
        engine: One that takes up jobs that are added while it runs, see :mod:`..sweep.engines`.
        rungs, eta: As of :func:`races`.

    Returns:
        Number of runs by how they ended, `paused` among them.

    Raises:
        KeyboardInterrupt: After the running jobs have their rows.
    """
    contests = races(jobs, rungs, eta)
    for race in contests:
        rules = race.rules
        worst = rules.worst_cost(rules.ahead) / rules.full_cost
        print(f'{race.name}: {len(race.jobs)} runs, rungs at {", ".join(map(str, rules.rungs))}, at most {worst:.0%}')
    ends: Counter[str] = Counter()
    queue: list[Job] = []
    taken: set[str] = set()
    _queue_due(results, contests, queue, taken)
    for job, end in engine(results, queue, slots, **options):
        ends[end] += 1
        print(f'{end}{_where(results, job, end)}: {describe(asdict(job))}', flush=True)
        for race in contests:
            race.failed |= {job.id} if end in ('failed', 'killed') else set()
        if end != 'running elsewhere':
            taken.discard(job.id)
        _queue_due(results, contests, queue, taken)
    print('\n'.join(race.summary(results) for race in contests), flush=True)
    return dict(ends)


def _queue_due(results: Path, contests: Sequence[Race], queue: list[Job], taken: set[str]) -> None:
    """Put the runs that are to go on, and are not `taken` yet, before those that wait in the queue."""
    due = [job for race in contests for job in race.due(results) if job.id not in taken]
    taken.update(job.id for job in due)
    queue[:0] = due


def _where(results: Path, job: Job, end: str) -> str:
    if end != 'paused':
        return ''
    rung = job.task['until']
    return f' at {rung}, score {score(json.loads(pause_file(results, job.id, rung).read_text())):.2f}'
