"""Races as a user runs them: what goes on continues its own run, and a kill anywhere changes nothing."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Event

import pytest
import torch
from processes import processes_of
from synthetic_rows import run_row

from hybrid_backbones._files import write_whole
from hybrid_backbones.benchmark.race.running import races, run_race
from hybrid_backbones.benchmark.rows import Row, append, describe, read
from hybrid_backbones.benchmark.sweep import running, worker
from hybrid_backbones.benchmark.sweep.jobs import Job, read_jobs
from hybrid_backbones.benchmark.sweep.running import JOBS, Engine, execute, pause_file, status

ROOT = Path(__file__).parents[3]
# `full` keeps the weights.
SPEC = f"""
tier: full
backbones: [tiny_moat_0, timm_efficientnet_lite0, deit_t]
frameworks:
  - name: upernet
    config: {ROOT}/configs/upernet_conv2former_n_shapes.py
    datasets: [shapes]
    schedules:
      9 iterations:
        train_cfg.max_iters: 9
        train_cfg.val_interval: 9
        param_scheduler.0.end: 2
        param_scheduler.1.begin: 2
        param_scheduler.1.end: 9
        val_dataloader.dataset.indices: 2
        train_dataloader.batch_size: 2
        train_dataloader.num_workers: 0
        train_dataloader.persistent_workers: false
        val_dataloader.num_workers: 0
        val_dataloader.persistent_workers: false
        default_hooks.logger.interval: 1
        default_hooks.checkpoint.interval: 2
    size: [64, 64]
"""


@pytest.fixture
def runs(tmp_path) -> list[Job]:
    spec = tmp_path / 'spec.yaml'
    spec.write_text(SPEC)
    return [job for job in read_jobs(spec) if job.record == 'run']


def final_weights(results: Path, job: Job) -> dict[str, torch.Tensor]:
    return torch.load(results / JOBS / job.id / worker.WORK_DIR / 'iter_9.pth', weights_only=False)['state_dict']


def assert_equal_weights(results: Path, others: Path, job: Job) -> None:
    ours, theirs = final_weights(results, job), final_weights(others, job)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-6)


def result(row: Row) -> dict:
    """What a row says of the training, without when and for how long."""
    return {key: row[key] for key in ('id', 'state', 'identity', 'metrics', 'curves', 'weights')}


def one_by_one(results: Path, jobs: list[Job], slots: int) -> Iterator[tuple[Job, str]]:
    """An engine that does one job after another."""
    while jobs:
        job = jobs.pop(0)
        yield job, execute(results, job, threads=1)


@pytest.fixture
def in_this_process(monkeypatch) -> None:
    """Run the worker's code without the seconds that a process of its own takes to start."""

    def supervise(folder: Path, threads: int, stop: Event) -> int:
        monkeypatch.setattr(sys, 'argv', ['worker', str(folder), str(os.getppid())])
        with pytest.raises(SystemExit) as end:
            worker.main()
        return int(end.value.code)

    monkeypatch.setattr(running, '_supervise', supervise)


def test_race_of_three(tmp_path, runs, in_this_process, capsys):
    results, unbroken = tmp_path / 'race', tmp_path / 'unbroken'
    ends = run_race(results, runs, one_by_one, slots=1)
    assert ends == {'paused': 4, 'finished': 1}
    (row,) = read(results)
    (survivor,) = (job for job in runs if job.id == row['id'])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == 'upernet, shapes, 9 iterations, seed 0: 3 runs, rungs at 1, 3, 9, at most 41%'
    assert printed[-2] == 'upernet, shapes, 9 iterations, seed 0: 3 runs took 41% of the iterations of the full sweep'
    assert printed[-1].endswith(describe(asdict(survivor)))
    # The best at the first rung is the one that went on, as a run that never paused.
    assert max(runs, key=lambda job: _score_at(results, job, 1)) == survivor
    assert execute(unbroken, survivor, threads=1) == 'finished'
    assert_equal_weights(results, unbroken, survivor)
    assert result(row) == result(read(unbroken)[0])

    # What was stopped is kept, and can be taken up.
    assert status(results, runs).startswith('3 jobs: 2 paused, 1 finished')
    stopped = next(job for job in runs if job != survivor)
    assert (results / JOBS / stopped.id / worker.WORK_DIR / 'iter_1.pth').exists()
    for folder in (results, unbroken):
        assert execute(folder, stopped, threads=1) == 'finished'
    assert_equal_weights(results, unbroken, stopped)
    # A race that is decided has nothing left to do.
    assert run_race(results, runs, one_by_one, slots=1) == {}


def _score_at(results: Path, job: Job, rung: int) -> float:
    return json.loads(pause_file(results, job.id, rung).read_text())['mIoU']


def replayed(curves: dict[str, dict[int, float]], fails: Sequence[str] = ()) -> Engine:
    """An engine that records a run's scores in place of training it; those that fail do so after the first rung."""

    def engine(results: Path, jobs: list[Job], slots: int) -> Iterator[tuple[Job, str]]:
        while jobs:
            job = jobs.pop(0)
            name, until = job.identity['backbone'], job.until or 9
            if name in fails and until > 1:
                yield job, 'failed'
            elif until == 9:
                metrics, identity = {'mIoU': curves[name][9]}, dict(job.identity, commit='0123abc')
                append(results, run_row(metrics=metrics, **identity))
                yield job, 'finished'
            else:
                write_whole(pause_file(results, job.id, until), json.dumps({'mIoU': curves[name][until]}))
                yield job, 'paused'

    return engine


CURVES = dict(
    tiny_moat_0={1: 3.0, 3: 5.0, 9: 9.0},
    timm_efficientnet_lite0={1: 2.0, 3: 6.0, 9: 8.0},
    deit_t={1: 1.0, 3: 7.0, 9: 7.0},
)


def test_run_that_fails_leaves_its_place_to_the_next_one(tmp_path, runs, capsys):
    ends = run_race(tmp_path, runs, replayed(CURVES, fails=['tiny_moat_0']), slots=1)
    assert ends == {'paused': 4, 'failed': 1, 'finished': 1}
    assert '  8.00 timm_efficientnet_lite0,' in capsys.readouterr().out.splitlines()[-1]
    # The next race tries it again.
    assert run_race(tmp_path, runs, replayed(CURVES), slots=1) == {'paused': 1, 'finished': 1}
    best, next_best = capsys.readouterr().out.splitlines()[-2:]
    assert best.startswith('  9.00 tiny_moat_0,')
    assert next_best.startswith('  8.00 timm_efficientnet_lite0,')


def test_race_says_that_it_waits_for_runs_of_another_process(tmp_path, runs, capsys):
    def elsewhere(results: Path, jobs: list[Job], slots: int) -> Iterator[tuple[Job, str]]:
        while jobs:
            yield jobs.pop(0), 'running elsewhere'

    assert run_race(tmp_path, runs, elsewhere, slots=1) == {'running elsewhere': 3}
    assert capsys.readouterr().out.endswith('not decided yet: 3 runs are to go on; the same command continues\n')


def test_runs_of_other_seeds_and_settings_race_apart(tmp_path):
    spec = tmp_path / 'spec.yaml'
    spec.write_text(SPEC + 'seeds: [0, 1]\nfrozen: [false, true]\n')
    jobs = read_jobs(spec)
    assert [(race.name.rpartition('iterations, ')[2], len(race.jobs)) for race in races(jobs)] == [
        ('seed 0', 3),
        ('seed 0, frozen', 3),
        ('seed 1', 3),
        ('seed 1, frozen', 3),
    ]
    assert {race.rules.rungs for race in races(jobs, rungs=[2, 4], eta=2)} == {(2, 4, 9)}
    with pytest.raises(ValueError, match=r'rungs \(4, 10, 9\): give positive positions that ascend to the end'):
        races(jobs, rungs=[4, 10])


def start(spec: Path, results: Path, engine: str, slots: int) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / 'tools' / 'transfer.py'), 'race', str(spec), '--results', str(results)]
    options = ['--engine', engine, '--slots', str(slots), '--threads', '1']
    return subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True, cwd=ROOT)


def kill_when(process: subprocess.Popen, results: Path, condition: Callable[[], bool]) -> None:
    """Kill the race with SIGKILL as soon as the condition holds, and wait for the end of its job."""
    while not condition():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.kill()
    process.wait()
    while any(processes_of(folder) for folder in (results / JOBS).iterdir()):
        time.sleep(0.1)


@pytest.mark.slow
def test_neither_kills_nor_engine_nor_slots_change_anything(tmp_path, runs):
    """Killed when the first run has paused and others are under way, and while the best one trains to the end."""
    pytest.importorskip('ray', reason="needs ray: pip install 'hybrid_backbones[ray]'")
    spec, results, undisturbed = tmp_path / 'spec.yaml', tmp_path / 'killed', tmp_path / 'undisturbed'
    assert start(spec, undisturbed, 'ray', slots=2).wait() == 0
    paused, nearly_finished = f'{JOBS}/*/paused_at_1.json', f'{JOBS}/*/{worker.WORK_DIR}/iter_6.pth'
    kill_when(start(spec, results, 'local', slots=2), results, lambda: any(results.glob(paused)))
    kill_when(start(spec, results, 'local', slots=1), results, lambda: any(results.glob(nearly_finished)))
    assert start(spec, results, 'local', slots=1).wait() == 0
    (row,), (expected,) = (
        [row for row in read(folder) if row['state'] == 'finished'] for folder in (results, undisturbed)
    )
    assert result(row) == result(expected)
    assert_equal_weights(results, undisturbed, next(job for job in runs if job.id == row['id']))
