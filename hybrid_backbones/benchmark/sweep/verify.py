"""Verification of rows: the beginning of their run is computed again, and their scores from the per-image results."""

import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..fingerprints import differences
from ..images import images_of, limits_in_percent
from ..rows import ResultsError, Row, describe
from .jobs import Job
from .running import JOB_FILE, LOG, OUTCOME, start_worker

# MMDetection rounds AP to a tenth of a point.
_POINTS = 0.051


def rows_with_jobs(rows: Sequence[Row], jobs: Sequence[Job], ids: Sequence[str] | None) -> list[tuple[Row, Job]]:
    """Rows of finished runs with the jobs of a spec that produce them, all or those of `ids`.

    Raises:
        ResultsError: There is none, or an id is of no such row or of no job.
    """
    runs = {row['id']: row for row in rows if row['record'] == 'run' and row['state'] == 'finished'}
    known = {job.id: job for job in jobs if job.id in runs}
    if unknown := [row_id for row_id in ids or () if row_id not in known]:
        raise ResultsError(
            f'no finished run of the spec has the id {", ".join(unknown)}; {len(known)} of the {len(runs)} finished '
            f'runs are of this spec: {", ".join(known) or "none"}'
        )
    if not known:
        raise ResultsError(
            f'none of the {len(runs)} finished runs is of the spec: give the spec that they were run with'
        )
    return [(runs[row_id], known[row_id]) for row_id in ids or known]


def verify(results: Path, row: Row, job: Job, threads: int) -> list[str]:
    """What is wrong with a row; see :mod:`..fingerprints` for what may differ between machines.

    Raises:
        ResultsError: Its per-image results are missing, or its run cannot begin here.
    """
    problems = list(_scores(results, row))
    if not row.get('fingerprint'):
        return [
            *problems,
            'it has no fingerprint: it is of an earlier version, or the run was resumed at its beginning',
        ]
    return problems + differences(_beginning(row, job, threads), row['fingerprint'], row['environment']['precision'])


def _scores(results: Path, row: Row) -> Iterator[str]:
    for name, metric in images_of(results, row).items():
        score = 100 * float(metric.scores(np.ones((1, len(metric.images))))[0])
        claimed = row['metrics'].get(name, math.nan)
        if not abs(score - claimed) <= _POINTS:
            yield f'{name} of the per-image results is {score:.2f}; the row has {claimed:.2f}'
        limits, stored = limits_in_percent(metric), row['intervals'].get(name)
        if limits and not (stored and np.allclose(limits, stored, rtol=0, atol=_POINTS)):
            yield f'the interval of {name} is {limits}; the row has {stored}'


def _beginning(row: Row, job: Job, threads: int) -> dict[str, Any]:
    """The fingerprint of a job that is run up to its first iterations, in a process of its own."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / JOB_FILE).write_text(replace(job, record='fingerprint').to_json())
        start_worker(folder, threads).wait()
        outcome = folder / OUTCOME
        found = json.loads(outcome.read_text()) if outcome.exists() else dict(error=_last_line(folder / LOG))
    if 'error' in found:
        raise ResultsError(f'{describe(row)} cannot be verified here: {found["error"]}')
    return found['fingerprint']


def _last_line(log: Path) -> str:
    return (log.read_text(errors='replace').splitlines() or ['no output'])[-1]
