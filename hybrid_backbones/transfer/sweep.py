"""Jobs done one after the other or side by side, each of which becomes a row whatever happens to it.

A results folder:

- `rows.jsonl`, see :mod:`.rows`;
- `jobs/ID/`, a folder for every job that was begun: `job.json`, `output.log`, the work directory, a lock that is held
  by whoever does it, and `begun`, which stays behind when that process ends without a word.

Any number of processes may work on one folder: what another does, or has finished, is left alone.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from threading import Event
from typing import Any

from filelock import FileLock, Timeout

from . import job as child
from .environment import commit, environment
from .rows import Row, append, read
from .spec import Job

JOBS = 'jobs'
LOG = 'output.log'
BEGUN = 'begun'
# Seconds that a process has to end by itself.
GRACE = 10


class Interrupted(Exception):
    """Asked to stop while a job was running."""


def done(results: Path) -> dict[str, Row]:
    """Finished rows by id."""
    return {row['id']: row for row in read(results) if row['state'] == 'finished'}


def execute(results: Path, job: Job, threads: int, stop: Event | None = None) -> str:
    """Do a job in a process of its own, and add its row.

    Args:
        results: Results folder.
        threads: Of the process.
        stop: Ends the job when it is set.

    Returns:
        `finished`, `failed`, `killed`; or `done before`, or `elsewhere` if another process is at it.
    """
    folder = results / JOBS / job.id
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / 'lock', thread_local=False).acquire(timeout=0)
    except Timeout:
        return 'elsewhere'
    with lock:
        if job.id in done(results):
            return 'done before'
        begun = folder / BEGUN
        if begun.exists():
            reason = f'the process that did it ended without a word; it had begun at {begun.read_text()}'
            append(results, _row(job, threads, 'killed', reason))
        begun.write_text(_now())
        row = _attempt(folder, job, threads, stop or Event())
        append(results, row)
        begun.unlink()
    return row['state']


def _attempt(folder: Path, job: Job, threads: int, stop: Event) -> Row:
    (folder / child.FILE).write_text(job.to_json())
    outcome = folder / child.OUTCOME
    outcome.unlink(missing_ok=True)
    start = time.monotonic()
    try:
        status = _supervise(folder, threads, stop)
    except Interrupted:
        return _row(job, threads, 'killed', 'interrupted', time.monotonic() - start)
    seconds = time.monotonic() - start
    if status < 0:
        reason = f'ended by {signal.Signals(-status).name}, see {folder / LOG}'
        if status == -signal.SIGKILL:
            reason += '; the system sends it when memory is short'
        return _row(job, threads, 'killed', reason, seconds)
    found = json.loads(outcome.read_text()) if outcome.exists() else {}
    if status or not found:
        reason = found.get('error') or f'exit status {status}, see {folder / LOG}'
        return _row(job, threads, 'failed', reason, seconds)
    return _row(job, threads, 'finished', None, seconds, found)


def _supervise(folder: Path, threads: int, stop: Event) -> int:
    """Exit status of the job's process.

    Raises:
        Interrupted: `stop` was set.
    """
    # Ray's and Slurm's workers run elsewhere.
    path = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get('PYTHONPATH')])]
    env = os.environ | dict(OMP_NUM_THREADS=str(threads), PYTHONPATH=os.pathsep.join(path))
    with (folder / LOG).open('ab') as log:
        process = subprocess.Popen(
            [sys.executable, '-m', child.__name__, str(folder)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,  # Ctrl-C is for us to pass on
        )
    try:
        while not stop.is_set():
            try:
                return process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                continue
        raise Interrupted
    finally:
        _end(process)


def _end(process: subprocess.Popen) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, sign)
            try:
                process.wait(timeout=GRACE)
            except subprocess.TimeoutExpired:
                continue


def _row(
    job: Job,
    threads: int,
    state: str,
    reason: str | None,
    seconds: float | None = None,
    found: dict[str, Any] | None = None,
) -> Row:
    return dict(
        record=job.record,
        origin='measured',
        state=state,
        reason=reason,
        time=_now(),
        seconds=seconds and round(seconds, 1),
        identity=dict(job.identity, commit=commit()),
        environment=environment(threads, job.task['precision']),
        **found or {},
    )


def _now() -> str:
    return datetime.now(timezone.utc).strftime('%Y-%m-%dT%H:%M:%SZ')
