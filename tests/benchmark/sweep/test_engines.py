"""Sweeps on Ray and Slurm, here with the local clusters of Ray and submitit."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from processes import processes_of

from hybrid_backbones.benchmark.rows import FILE, read
from hybrid_backbones.benchmark.sweep import engines
from hybrid_backbones.benchmark.sweep.jobs import Job
from hybrid_backbones.benchmark.sweep.running import JOBS


def profile(size: int, **effort) -> Job:
    identity = dict(backbone='tiny_moat_0', options={}, framework=None, config_sha256=None, size=[size, size])
    effort = dict(iterations=1, seconds=1, train_memory=False) | effort
    return Job('profile', dict(identity, batch_size=1, precision='fp32'), dict(effort=effort))


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
    quick, slow = profile(32), profile(64, iterations=1_000_000, seconds=5)
    killed: list[int] = []
    threading.Thread(target=_kill_the_worker_of, args=(slow, tmp_path, killed), daemon=True).start()
    ends = {job.id: end for job, end in engines.ray(tmp_path, [slow, quick], slots=2)}
    assert len(killed) == 1
    assert ends == {quick.id: 'finished', slow.id: 'finished'}
    assert {row['id'] for row in read(tmp_path)} == ends.keys()
    lines = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    (killed_row,) = [row for row in lines if row['state'] != 'finished']
    assert killed_row['id'] == slow.id
    assert killed_row['reason'].startswith('the supervising process was killed')


def test_submitit_runs_an_array(tmp_path):
    pytest.importorskip('submitit', reason="needs submitit: pip install 'hybrid_backbones[slurm]'")
    jobs = [profile(32), profile(8)]
    ends = {job.id: end for job, end in engines.slurm(tmp_path, jobs, 2, cluster='local', timeout_min=5)}
    assert ends == {jobs[0].id: 'finished', jobs[1].id: 'failed'}
    assert {row['id']: row['state'] for row in read(tmp_path)} == ends


def test_missing_engine_is_an_error_with_the_install_command(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'ray', None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'hybrid_backbones\[ray\]'"):
        list(engines.ray(tmp_path, [], 1))
