"""Sweeps on Ray and Slurm, here with the local clusters of Ray and submitit."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock
from processes import processes_of

from hybrid_backbones.benchmark.rows import FILE, read
from hybrid_backbones.benchmark.sweep import engines
from hybrid_backbones.benchmark.sweep.jobs import Job
from hybrid_backbones.benchmark.sweep.running import JOBS


def profile(size: int) -> Job:
    identity = dict(backbone='tiny_moat_0', options={}, framework=None, config_sha256=None, size=[size, size])
    effort = dict(iterations=1, seconds=1, train_memory=False)
    return Job('profile', dict(identity, batch_size=1, precision='fp32'), dict(effort=effort))


def _held(job: Job, results: Path) -> FileLock:
    """Holds a job as the process does that runs it."""
    folder = results / JOBS / job.id
    folder.mkdir(parents=True)
    return FileLock(folder / 'lock')


def _kill_the_worker_of(job: Job, results: Path, killed: list[int]) -> None:
    """Kill the process that supervises a job, once that has started."""
    while not (running := processes_of(results / JOBS / job.id)):
        time.sleep(0.05)
    for pid in running:
        parent = int(Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[1])
        os.kill(parent, signal.SIGKILL)
        killed.append(parent)


def test_ray_repeats_jobs_whose_worker_was_killed(tmp_path):
    pytest.importorskip('ray', reason="needs ray: pip install 'hybrid_backbones[ray]'")
    job, other = profile(32), profile(64)
    killed: list[int] = []
    threading.Thread(target=_kill_the_worker_of, args=(job, tmp_path, killed), daemon=True).start()
    with _held(other, tmp_path):
        ends = {job.id: end for job, end in engines.ray(tmp_path, [job, other], slots=1)}
    assert len(killed) == 1
    assert ends == {job.id: 'finished', other.id: 'running elsewhere'}
    killed_row, finished_row = map(json.loads, (tmp_path / FILE).read_text().splitlines())
    assert killed_row['id'] == finished_row['id'] == job.id
    assert killed_row['reason'].startswith('the supervising process was killed')
    assert finished_row['state'] == 'finished'


def test_submitit_runs_an_array(tmp_path):
    pytest.importorskip('submitit', reason="needs submitit: pip install 'hybrid_backbones[slurm]'")
    job, other = jobs = profile(32), profile(64)
    with _held(other, tmp_path):
        ends = {job.id: end for job, end in engines.slurm(tmp_path, jobs, 2, cluster='local', timeout_min=5)}
    assert ends == {job.id: 'finished', other.id: 'running elsewhere'}
    assert [(row['id'], row['state']) for row in read(tmp_path)] == [(job.id, 'finished')]


def test_missing_engine_is_an_error_with_the_install_command(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'ray', None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'hybrid_backbones\[ray\]'"):
        list(engines.ray(tmp_path, [], 1))
