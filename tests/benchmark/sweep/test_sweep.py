"""Sweeps as a user runs them: every job becomes a row, whatever happens to it, and finishes once."""

import copy
import json
import multiprocessing
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from processes import processes_of

from hybrid_backbones import create_backbone
from hybrid_backbones.benchmark.costs import with_costs
from hybrid_backbones.benchmark.images import images_of
from hybrid_backbones.benchmark.rows import Row, append, read
from hybrid_backbones.benchmark.sweep.jobs import Job, read_jobs
from hybrid_backbones.benchmark.sweep.running import JOBS, STARTED, execute
from hybrid_backbones.benchmark.sweep.worker import frozen

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
    datasets: [shapes]
    schedules:
      2 iterations:
        train_cfg.max_iters: 2
        train_cfg.val_interval: 2
        val_dataloader.dataset.indices: 2
        test_dataloader.dataset.indices: 2
        train_dataloader.num_workers: 0
        train_dataloader.persistent_workers: false
        val_dataloader.num_workers: 0
        val_dataloader.persistent_workers: false
        test_dataloader.num_workers: 0
        test_dataloader.persistent_workers: false
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
        assert time.monotonic() < end, 'timed out'
        time.sleep(0.1)


def started(results: Path, job: Job) -> bool:
    """Whether the job's own process runs."""
    return (results / JOBS / job.id / STARTED).exists() and bool(processes_of(results / JOBS / job.id))


def by_state(rows: list[Row]) -> dict[str, list[Row]]:
    return {state: [row for row in rows if row['state'] == state] for state in ('finished', 'failed', 'killed')}


def test_rows_failures_and_repeated_run(tool, tmp_path):
    spec, results = write(tmp_path, RUNS), tmp_path / 'results'
    status, printed = tool('run', spec, '--results', results, '--slots', 2)
    assert status == 1, printed
    rows = by_state(read(results))
    profile, run = rows['finished']
    assert (profile['record'], run['record']) == ('profile', 'run')
    assert run['metrics'].keys() == {'mIoU', 'aAcc', 'mAcc', 'mIoU_ms', 'aAcc_ms', 'mAcc_ms'}
    assert [point[0] for point in run['curves']['loss']] == [1, 2]
    assert run['identity']['frozen'] is True
    low, high = run['intervals']['mIoU']
    assert low <= run['metrics']['mIoU'] <= high
    assert 100 * float(images_of(results, run)['mIoU'].scores(np.ones((1, 2)))[0]) == pytest.approx(
        run['metrics']['mIoU'], abs=0.005
    )
    # The report and the check take cost and speed from the profile of the model.
    assert 'cost' not in run
    assert with_costs([profile, run])[1]['cost'] == profile['cost'] != profile['backbone_cost']
    (failed,) = rows['failed']
    assert failed['reason'].startswith('ValueError: Conv2Former got an image of 8x8 pixels')

    _, printed = tool('status', spec, '--results', results)
    assert printed.startswith('3 jobs: 2 finished, 1 failed')
    assert 'failed: conv2former_n, profile, 8x8: ValueError: Conv2Former got an image of 8x8 pixels' in printed

    _, printed = tool('run', spec, '--results', results)
    assert '3 jobs, 2 of them finished before' in printed
    states = [json.loads(line)['state'] for line in (results / 'rows.jsonl').read_text().splitlines()]
    assert states == ['failed', 'finished', 'finished', 'failed']

    status, printed = tool('report', results)
    assert status == 0
    assert {Path(line).name for line in printed.splitlines()} >= {'report.html', 'report.md', 'report.csv'}
    assert tool('check', results, '--baseline', results) == (0, f'{results} agrees with {results}\n')

    edited = copy.deepcopy(run)
    edited['metrics']['mIoU'] += 1
    edited['fingerprint']['losses'][0] *= 1.002
    edited['fingerprint']['parameters'] += 1
    (results / 'rows.jsonl').unlink()
    append(results, edited)
    status, printed = tool('verify', spec, '--results', results, '--row', run['id'])
    assert status == 1
    # Everything else is computed again as it was.
    assert [re.split(' is | are ', line.strip())[0] for line in printed.splitlines()[1:]] == [
        'mIoU of the per-image results',
        'parameters',
        'loss 1',
    ]


@pytest.mark.slow
def test_rows_are_verified(tool, tmp_path):
    spec, results = write(tmp_path, RUNS), tmp_path / 'results'
    tool('run', spec, '--results', results)
    status, printed = tool('verify', spec, '--results', results)
    assert (status, printed.count('verified'), printed.count('not verified')) == (0, 1, 0)
    assert tool('verify', spec, '--results', results, '--row', 'abc')[0].startswith(
        'no finished run of the spec has the id abc; 1 of the 1 finished runs are of this spec:'
    )


@pytest.mark.slow
@pytest.mark.parametrize('engine', ['onnxruntime', 'openvino'])
def test_metrics_and_speed_of_the_exported_file(tool, tmp_path, engine):
    by_torch = RUNS.replace('    multi_scale: true\n', '').replace('tiny_moat_0', 'conv2former_n')
    by_engine = by_torch.replace('    size: [64, 64]', f'    size: [64, 64]\n    engine: {engine}')
    rows = []
    for name, text in (('torch', by_torch), ('engine', by_engine)):
        spec = write(tmp_path, text.replace('profile: {backbones: [conv2former_n], sizes: [8]}\n', ''))
        status, printed = tool('run', spec, '--results', tmp_path / name)
        assert status == 0, printed
        rows += with_costs(read(tmp_path / name))
    profile, run, profile_of_file, run_of_file = rows
    assert run_of_file['identity']['engine'] == profile_of_file['identity']['engine'] == engine
    assert run_of_file['metrics'] == pytest.approx(run['metrics'], abs=0.05)
    # PyTorch's memory is not the file's.
    assert run_of_file['cost'] == run['cost'] and run_of_file['memory']['inference_mib'] is None
    assert run_of_file['speed']['median_s'] == profile_of_file['speed']['median_s'] != profile['speed']['median_s']
    assert not list((tmp_path / 'engine').rglob('deployed.*'))  # of this tier, as the weights
    _, printed = tool('status', spec, '--results', tmp_path / 'engine')
    assert printed.startswith('2 jobs: 2 finished')
    assert tool('report', tmp_path / 'engine')[0] == 0
    assert f'upernet in {engine}' in (tmp_path / 'engine/report/report.md').read_text()


def test_missing_extra_is_an_error_with_the_install_command():
    code = f"import runpy, sys; sys.modules['plotly'] = None; runpy.run_path({str(TOOL)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    message = "hybrid-backbones transfer: not installed: plotly; run pip install 'hybrid_backbones[transfer]'"
    assert done.stderr.splitlines()[-1] == message


@pytest.mark.parametrize(('kind', 'field'), [('row', 'RunRow'), ('spec', 'Framework')])
def test_schema_is_generated_from_the_models(tool, kind, field):
    status, printed = tool('schema', kind)
    assert status == 0
    assert field in json.loads(printed)['$defs']


def test_data_that_is_missing_stops_a_sweep_before_anything_runs(tool, tmp_path):
    config = ROOT / 'configs' / 'proxy_maskrcnn_conv2former_n_coco.py'
    text = f'tier: smoke\nbackbones: [cvt_13]\nframeworks: [{{name: x, config: {config}, datasets: [mine]}}]'
    spec, results = write(tmp_path, text), tmp_path / 'results'
    status, _ = tool('run', spec, '--results', results, '--data', f'mine={tmp_path}')
    assert status.startswith(f'dataset mine is missing or incomplete:\n  no folder {tmp_path}/train2017')
    assert not results.exists()
    assert tool('status', spec, '--results', results) == (0, '2 jobs: 2 waiting\n')


def test_errors_are_one_line(tool, tmp_path):
    spec = write(tmp_path, 'tier: smoke\nbackbones: [cvt13]')
    assert tool('run', spec)[0].endswith("unknown backbone 'cvt13'. Did you mean cvt_13 or cvt_21?")
    assert tool('run', tmp_path / 'gone.yaml')[0].startswith('no spec')
    assert tool('report', tmp_path / 'gone')[0].startswith('no results folder')
    for pair in ((tmp_path / 'gone', tmp_path), (tmp_path, tmp_path / 'gone')):
        assert tool('check', pair[0], '--baseline', pair[1])[0].startswith(f'no results folder {tmp_path}/gone')
    assert not (tmp_path / 'gone').exists()
    status, printed = tool('check', tmp_path, '--baseline', tmp_path)
    assert (status, 'nothing to compare with' in printed) == (1, True)


def test_frozen_backbone_has_no_trainable_parameters():
    backbone = create_backbone('tiny_moat_0', **frozen('tiny_moat_0', {})).train()
    trainable = {name: p.requires_grad for name, p in backbone.named_parameters()}
    assert not any(trainable[name] for name in trainable if not name.startswith('out_norms'))


def test_ctrl_c_marks_running_jobs_as_killed(tool, tmp_path):
    spec, results = write(tmp_path, LONG), tmp_path / 'results'
    (job,) = read_jobs(spec)
    process = subprocess.Popen(
        command('run', spec, results),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # Shells start background processes, as these tests may be, with SIGINT ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(lambda: started(results, job))
    # Meanwhile the status shows it as running, and another process skips it.
    assert tool('status', spec, '--results', results)[1].startswith('1 jobs: 1 running')
    assert 'running elsewhere tiny_moat_0, profile, 1024x1024' in tool('run', spec, '--results', results)[1]
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert errors.endswith('running jobs are marked as killed; the same command continues\n')
    (row,) = read(results)
    assert (row['state'], row['reason']) == ('killed', 'interrupted')


def test_jobs_of_a_killed_sweep_exit_and_are_marked_by_the_next_one(tmp_path):
    (job,), results = read_jobs(write(tmp_path, LONG)), tmp_path / 'results'
    process = multiprocessing.get_context('fork').Process(target=execute, args=(results, job, 1))
    process.start()
    wait_for(lambda: started(results, job))
    process.kill()
    process.join()
    wait_for(lambda: not processes_of(results / JOBS / job.id))
    assert read(results) == []
    at_once = Event()
    at_once.set()
    assert execute(results, job, threads=1, stop=at_once) == 'killed'
    killed, stopped = map(json.loads, (results / 'rows.jsonl').read_text().splitlines())
    assert killed['state'] == 'killed'
    assert killed['reason'].startswith('the supervising process was killed; the job had started at 20')
    assert stopped['reason'] == 'interrupted'
