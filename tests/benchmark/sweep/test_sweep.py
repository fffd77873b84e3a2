"""Sweeps as a user runs them: every job becomes a row, whatever happens to it, and is done once."""

import json
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from processes import processes_of

from hybrid_backbones import create_backbone
from hybrid_backbones.benchmark.rows import Row, read
from hybrid_backbones.benchmark.sweep.job import frozen
from hybrid_backbones.benchmark.sweep.running import BEGUN, JOBS, execute
from hybrid_backbones.benchmark.sweep.spec import Job, read_spec

ROOT = Path(__file__).parents[3]
TOOL = ROOT / 'tools' / 'transfer.py'
# Until it is stopped.
LONG = """
tier: smoke
effort: {iterations: 1000000, seconds: 1800, train_memory: false}
profile: {backbones: [tiny_moat_0], sizes: [1024]}
"""
RUNS = f"""
tier: smoke
effort: {{iterations: 1, seconds: 1, train_memory: false}}
backbones: [tiny_moat_0]
profile: {{backbones: [conv2former_n], sizes: [8]}}
frameworks:
  - name: upernet
    config: {ROOT}/configs/upernet_conv2former_n_shapes.py
    datasets: {{shapes: null}}
    schedules:
      2 iterations:
        train_cfg.max_iters: 2
        train_cfg.val_interval: 2
        val_dataloader.dataset.indices: 2
        train_dataloader.num_workers: 0
        train_dataloader.persistent_workers: false
        val_dataloader.num_workers: 0
        val_dataloader.persistent_workers: false
        default_hooks.logger.interval: 1
    size: [64, 64]
    multi_scale: true
frozen: [true]
"""


def command(verb: str, spec: Path, results: Path) -> list[str]:
    return [sys.executable, str(TOOL), verb, str(spec), '--results', str(results)]


@pytest.fixture
def tool(monkeypatch, capsys) -> Iterator[Callable[..., tuple[int | str, str]]]:
    """Calls tools/transfer.py in this process: exit status or message, and what it prints."""
    on_sigterm = signal.getsignal(signal.SIGTERM)

    def call(*arguments: object) -> tuple[int | str, str]:
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
        status = runpy.run_path(str(TOOL))['main']()
        return status, capsys.readouterr().out

    yield call
    signal.signal(signal.SIGTERM, on_sigterm)


def write(folder: Path, text: str) -> Path:
    path = folder / 'spec.yaml'
    path.write_text(text)
    return path


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'it did not happen'
        time.sleep(0.1)


def begun(results: Path, job: Job) -> bool:
    """Whether a process of its own does it: until then its supervisor's fork holds the lock."""
    return (results / JOBS / job.id / BEGUN).exists() and bool(processes_of(results / JOBS / job.id))


def by_state(rows: list[Row]) -> dict[str, list[Row]]:
    return {state: [row for row in rows if row['state'] == state] for state in ('finished', 'failed', 'killed')}


def test_runs_become_rows_a_failure_has_its_reason_and_is_all_that_is_done_again(tool, tmp_path):
    spec, results = write(tmp_path, RUNS), tmp_path / 'results'
    status, printed = tool('run', spec, '--results', results, '--slots', 2)
    assert status == 1, printed
    rows = by_state(read(results))
    profile, run = rows['finished']
    assert (profile['record'], run['record']) == ('profile', 'run')
    assert run['metrics'].keys() == {'mIoU', 'aAcc', 'mAcc', 'mIoU_ms', 'aAcc_ms', 'mAcc_ms'}
    assert [point[0] for point in run['curves']['loss']] == [1, 2]
    assert run['identity']['frozen'] is True
    # The whole model's, from the profile.
    assert run['cost'] == profile['cost'] != profile['backbone_cost']
    assert run['speed']['median_s'] > 0
    (failed,) = rows['failed']
    assert failed['reason'].startswith('ValueError: Conv2Former got an image of 8x8 pixels')

    _, told = tool('status', spec, '--results', results)
    assert told.startswith('3 jobs: 2 finished, 1 failed')
    assert 'failed: conv2former_n, profile, 8x8: ValueError: Conv2Former got an image of 8x8 pixels' in told

    _, printed = tool('run', spec, '--results', results)
    assert '3 jobs, 2 of them finished before' in printed
    states = [json.loads(line)['state'] for line in (results / 'rows.jsonl').read_text().splitlines()]
    assert states == ['failed', 'finished', 'finished', 'failed']

    status, printed = tool('report', results)
    assert status == 0
    assert {Path(line).name for line in printed.splitlines()} >= {'report.html', 'report.md', 'report.csv'}
    assert tool('check', results, '--baseline', results) == (0, f'{results} is as {results}\n')


def test_what_cannot_be_done_is_one_line(tool, tmp_path):
    spec = write(tmp_path, 'tier: smoke\nbackbones: [cvt13]')
    assert tool('run', spec)[0].endswith("unknown backbone 'cvt13'. Did you mean cvt_13 or cvt_21?")
    assert tool('run', tmp_path / 'gone.yaml')[0].startswith('no spec')
    assert tool('report', tmp_path / 'gone')[0].startswith('no results folder')
    for pair in ((tmp_path / 'gone', tmp_path), (tmp_path, tmp_path / 'gone')):
        assert tool('check', pair[0], '--baseline', pair[1])[0].startswith(f'no results folder {tmp_path}/gone')
    assert not (tmp_path / 'gone').exists()
    status, printed = tool('check', tmp_path, '--baseline', tmp_path)
    assert (status, 'nothing to compare with' in printed) == (1, True)


def test_a_frozen_backbone_learns_nothing():
    backbone = create_backbone('tiny_moat_0', **frozen('tiny_moat_0', {})).train()
    kept = {name: p.requires_grad for name, p in backbone.named_parameters()}
    assert not any(kept[name] for name in kept if not name.startswith('out_norms'))


def test_ctrl_c_marks_what_was_running_and_the_same_command_goes_on(tool, tmp_path):
    spec, results = write(tmp_path, LONG), tmp_path / 'results'
    (job,) = read_spec(spec)
    process = subprocess.Popen(
        command('run', spec, results),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # Tests that a shell started in the background pass on that Ctrl-C is ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(lambda: begun(results, job))
    # Meanwhile it is seen at work, and left alone by another process.
    assert tool('status', spec, '--results', results)[1].startswith('1 jobs: 1 running')
    assert 'elsewhere tiny_moat_0, profile, 1024x1024' in tool('run', spec, '--results', results)[1]
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert errors.endswith('what was running is marked; the same command goes on\n')
    (row,) = read(results)
    assert (row['state'], row['reason']) == ('killed', 'interrupted')


def test_a_killed_sweep_takes_its_jobs_with_it_and_they_are_marked_by_the_next(tmp_path):
    spec, results = write(tmp_path, LONG), tmp_path / 'results'
    (job,) = read_spec(spec)
    process = subprocess.Popen(command('run', spec, results), stdout=subprocess.DEVNULL, cwd=ROOT)
    wait_for(lambda: begun(results, job))
    process.kill()
    process.wait()
    wait_for(lambda: not processes_of(results / JOBS / job.id), 30)
    # One that takes no time in its place.
    assert read(results) == []
    effort = dict(iterations=1, seconds=1, train_memory=False)
    quick = Job(job.record, job.identity | dict(size=[32, 32]), dict(effort=effort))
    (results / JOBS / job.id).rename(results / JOBS / quick.id)
    assert execute(results, quick, threads=1) == 'finished'
    killed, finished = map(json.loads, (results / 'rows.jsonl').read_text().splitlines())
    assert killed['state'] == 'killed'
    assert killed['reason'].startswith('the process that did it ended without a word; it had begun at 20')
    assert finished['state'] == 'finished'
