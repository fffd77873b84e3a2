"""Running jobs, one after another or in parallel; each becomes a row, whatever happens to it.

A results folder:

- `rows.jsonl`, see :mod:`..rows`;
- `jobs/ID/`, a folder for every job that was started: `job.json`, `output.log`, the work directory, a lock that is held
  by the process that supervises it, and `started`, which remains if that process is killed; and `paused_at_K.json`
  with the metrics of a run that paused at position K of its schedule.

Any number of processes may work on one folder: a job that another one runs, or has finished, is skipped.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from pathlib import Path
from threading import Event
from typing import Any

from filelock import FileLock, Timeout

from ..._files import write_whole
from ..rows import Row, append, describe, read
from .environment import commit, environment
from .jobs import Job

JOBS = 'jobs'
LOG = 'output.log'
JOB_FILE = 'job.json'
OUTCOME = 'outcome.json'
WORKER = f'{__package__}.worker'
STARTED = 'started'
# A function of :mod:`.engines`.
Engine = Callable[..., Iterator[tuple[Job, str]]]
# Seconds between SIGTERM and SIGKILL.
GRACE_S = 10


class Interrupted(Exception):
    """A running job was asked to stop."""


def finished_ids(results: Path) -> set[str]:
    """Ids of the finished rows."""
    return {row['id'] for row in read(results) if row['state'] == 'finished'}


def pause_file(results: Path, job_id: str, until: int) -> Path:
    """Where a run that paused at `until` has its metrics."""
    return results / JOBS / job_id / f'paused_at_{until}.json'


def execute(results: Path, job: Job, threads: int, stop: Event | None = None) -> str:
    """Run a job in a process of its own, and add its row, unless it pauses.

    Args:
        results: Results folder.
        threads: Threads of the process.
        stop: Ends the job when it is set.

    Returns:
        `finished`, `failed` or `killed`; `paused` at `until` of the job's task; `finished before`, or `running
        elsewhere` if another process runs it.
    """
    folder = results / JOBS / job.id
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / 'lock', thread_local=False).acquire(timeout=0)
    except Timeout:
        return 'running elsewhere'
    with lock:
        if job.id in finished_ids(results):
            return 'finished before'
        if job.until and pause_file(results, job.id, job.until).exists():
            return 'paused'
        started = folder / STARTED
        if started.exists():
            reason = f'the supervising process was killed; the job had started at {started.read_text()}'
            append(results, _row(job, threads, 'killed', reason))
        started.write_text(_now())
        row = _attempt(folder, job, threads, stop or Event())
        if row['state'] == 'finished' and job.until:
            write_whole(pause_file(results, job.id, job.until), json.dumps(row['metrics']))
            row['state'] = 'paused'
        else:
            append(results, row)
        started.unlink()
    return row['state']


def _attempt(folder: Path, job: Job, threads: int, stop: Event) -> Row:
    (folder / JOB_FILE).write_text(job.to_json())
    outcome = folder / OUTCOME
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
        reason = found.pop('error', f'exit status {status}, see {folder / LOG}')
        # The cost is known even if memory ran out afterwards.
        return _row(job, threads, 'failed', reason, seconds, found)
    return _row(job, threads, 'finished', None, seconds, found)


def _supervise(folder: Path, threads: int, stop: Event) -> int:
    """Exit status of the job's process.

    Raises:
        Interrupted: `stop` was set.
    """
    process = start_worker(folder, threads)
    try:
        while not stop.is_set():
            try:
                return process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                continue
        raise Interrupted
    finally:
        _end(process)


def start_worker(folder: Path, threads: int) -> subprocess.Popen:
    """Start the process that runs `job.json` in `folder`; it logs to `output.log`, and ends when this one does."""
    # Workers of Ray and Slurm have other working directories.
    path = [str(Path(__file__).parents[3]), *filter(None, [os.environ.get('PYTHONPATH')])]
    env = os.environ | dict(OMP_NUM_THREADS=str(threads), PYTHONPATH=os.pathsep.join(path))
    with (folder / LOG).open('ab') as log:
        return subprocess.Popen(
            [sys.executable, '-m', WORKER, str(folder), str(os.getpid())],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,  # Ctrl-C reaches it through this process only
        )


def _end(process: subprocess.Popen) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, sign)
            try:
                process.wait(timeout=GRACE_S)
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
        environment=environment(threads, job.precision),
        **found or {},
    )


def _now() -> str:
    return datetime.now(timezone.utc).strftime('%Y-%m-%dT%H:%M:%SZ')


def unfinished(results: Path, jobs: Iterable[Job]) -> list[Job]:
    """Jobs without a finished row, in their order."""
    finished = finished_ids(results)
    return [job for job in jobs if job.id not in finished]


def run_sweep(results: Path, jobs: Sequence[Job], engine: Engine, slots: int, **options: Any) -> dict[str, int]:
    """Run the jobs that are not finished yet, and print a line as each ends.

    Profiles come first and one at a time, so that nothing else disturbs their measurements.

    Returns:
        Number of jobs by how they ended.

    Raises:
        KeyboardInterrupt: After the running jobs have their rows.
    """
    left = unfinished(results, jobs)
    ends: Counter[str] = Counter()
    print(f'{len(jobs)} jobs, {len(jobs) - len(left)} of them finished before; results in {results}', flush=True)
    start = time.monotonic()
    for record, at_once in (('profile', 1), ('run', slots)):
        for job, end in engine(results, [job for job in left if job.record == record], at_once, **options):
            ends[end] += 1
            pace = (time.monotonic() - start) / ends.total()
            remaining = f'{timedelta(seconds=round(pace * (len(left) - ends.total())))} left'
            print(f'{ends.total()}/{len(left)}, about {remaining}: {end} {describe(asdict(job))}', flush=True)
    return dict(ends)


def status(results: Path, jobs: Sequence[Job]) -> str:
    """Progress of a sweep: counts, running jobs with their start, failures with their reasons, remaining time."""
    rows = {row['id']: row for row in read(results)}
    states = {job.id: rows[job.id]['state'] if job.id in rows else 'waiting' for job in jobs}
    states |= {job.id: 'paused' for job in jobs if states[job.id] != 'finished' and _has_paused(results, job)}
    states |= {job.id: 'running' for job in jobs if states[job.id] != 'finished' and _is_running(results, job)}
    lines = [f'{len(jobs)} jobs: ' + ', '.join(f'{n} {state}' for state, n in Counter(states.values()).most_common())]
    for job in jobs:
        state, what = states[job.id], describe(asdict(job))
        if state == 'running':
            lines.append(f'  running since {(results / JOBS / job.id / STARTED).read_text()}: {what}')
        elif state in ('failed', 'killed'):
            lines.append(f'  {state}: {what}: {rows[job.id]["reason"]}')
    took = [rows[job.id]['seconds'] for job in jobs if states[job.id] == 'finished']
    left = sum(state != 'finished' for state in states.values())
    if took and left:
        lines.append(
            f'about {left * sum(took) / len(took) / 60:.0f} minutes of work left, estimated from the finished jobs'
        )
    return '\n'.join(lines)


def _has_paused(results: Path, job: Job) -> bool:
    return any((results / JOBS / job.id).glob('paused_at_*.json'))


def _is_running(results: Path, job: Job) -> bool:
    folder = results / JOBS / job.id
    if not (folder / STARTED).exists():
        return False
    try:
        FileLock(folder / 'lock').acquire(timeout=0).lock.release()
    except Timeout:
        return True
    return False
