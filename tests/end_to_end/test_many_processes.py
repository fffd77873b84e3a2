"""tools/dist_train.sh and tools/slurm_train.sh: a killed process ends the job in words, and the job resumes exactly."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from end_to_end.tiny import ROOT, SEGMENTOR
from engine.processes import free_port, run_forked
from mmengine.device import get_device

from hybrid_backbones.datasets.shapes import ensure_shapes
from hybrid_backbones.engine.run import train

pytestmark = pytest.mark.skipif(get_device() != 'cpu', reason='this machine has an accelerator')
SCRIPT = ROOT / 'tools' / 'dist_train.sh'
ENVIRONMENT = os.environ | dict(OMP_NUM_THREADS='1', PYTHON=sys.executable)


@pytest.fixture(scope='module')
def shapes(tmp_path_factory) -> Path:
    return ensure_shapes(tmp_path_factory.mktemp('shapes') / 'data', num_train=8, num_val=1, size=64)


def worker_of(launcher: int, rank: int) -> int:
    """Process id of a rank among the children of torchrun."""
    children = Path(f'/proc/{launcher}/task/{launcher}/children').read_text().split()
    (pid,) = (pid for pid in children if f'\0RANK={rank}\0' in Path(f'/proc/{pid}/environ').read_text())
    return int(pid)


def launch_and_kill(config: Path, work_dir: Path, data: Path, at: str) -> str:
    """Train in two processes; kill the second as soon as the log shows `at`. Returns what was printed."""
    process = subprocess.Popen(
        [str(SCRIPT), str(config), '2', '--work-dir', str(work_dir), '--data-root', str(data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # As on one of several machines: a port that was agreed upon.
        env=ENVIRONMENT | dict(PORT=str(free_port())),
    )
    lines, killed = [], None
    for line in process.stdout:
        lines.append(line)
        if not killed and re.search(at, line):
            killed = worker_of(process.pid, rank=1)
            os.kill(killed, signal.SIGKILL)
    code, log = process.wait(60), ''.join(lines)
    assert code == 1 and killed, log[-3000:]
    assert f'The job has ended: rank 1 (process {killed}) was killed by SIGKILL' in log, log[-3000:]
    return log


def finish(config: str, data: str, broken: str, unbroken: str) -> None:
    """Resume one run, and train the other from the beginning."""
    for folder, resume in ((broken, 'auto'), (unbroken, None)):
        train(config, work_dir=folder, data_root=data, resume=resume, launcher='pytorch', mallopt=False)


@pytest.mark.skipif(not Path('/proc/self/task').is_dir(), reason='finds the processes in /proc')
def test_killed_process_ends_the_job_which_resumes_exactly(tmp_path, shapes):
    config = tmp_path / 'segmentor.py'
    config.write_text(f'{SEGMENTOR}\nrandomness = dict(seed=3)\n')
    broken, unbroken = tmp_path / 'broken', tmp_path / 'unbroken'
    log = launch_and_kill(config, broken, shapes, at=r'Iter\(train\) +\[ *7/12\]')
    assert 'the same command with --resume continues from the last checkpoint' in log.splitlines()[-1]
    assert [path.name for path in broken.glob('*.pth')] == ['iter_5.pth']

    run_forked(tmp_path, 2, finish, str(config), str(shapes), str(broken), str(unbroken))
    ours, theirs = (
        torch.load(folder / 'iter_12.pth', weights_only=False)['state_dict'] for folder in (broken, unbroken)
    )
    begun = torch.load(broken / 'iter_5.pth', weights_only=False)['state_dict']
    for key in theirs:
        torch.testing.assert_close(ours[key], theirs[key], rtol=0, atol=1e-6, msg=key)
    assert max(float((ours[key].float() - begun[key].float()).abs().max()) for key in ours) > 1e-4


def test_port_in_use(tmp_path, shapes, monkeypatch):
    """Said by the script before anything starts, and by tools/train.py where another launcher started it."""
    config = tmp_path / 'segmentor.py'
    config.write_text(SEGMENTOR)
    with socket.socket() as server:
        server.bind(('', 0))
        server.listen()
        port = str(server.getsockname()[1])
        done = subprocess.run(
            [str(SCRIPT), str(config), '2'], env=ENVIRONMENT | dict(PORT=port), capture_output=True, text=True
        )
        assert done.returncode == 1
        assert f'port {port} of this machine is in use' in done.stderr and 'set PORT to a free one' in done.stderr
        assert 'Traceback' not in done.stderr
        for name, value in dict(RANK=0, LOCAL_RANK=0, WORLD_SIZE=2, MASTER_ADDR='127.0.0.1', MASTER_PORT=port).items():
            monkeypatch.setenv(name, str(value))
        with pytest.raises(
            ConnectionError, match=rf'rank 0\) cannot meet the others at 127\.0\.0\.1:{port}.*MASTER_PORT'
        ):
            train(str(config), str(tmp_path / 'work'), str(shapes), launcher='pytorch', mallopt=False)


def test_batch_that_the_processes_do_not_divide(tmp_path, shapes, monkeypatch):
    config = tmp_path / 'segmentor.py'
    config.write_text(SEGMENTOR)
    monkeypatch.setenv('WORLD_SIZE', '3')
    with pytest.raises(ValueError, match=r'--total-batch 4 cannot be shared evenly by 3 processes.* such as 3,'):
        train(str(config), str(tmp_path / 'work'), str(shapes), total_batch=4, launcher='pytorch', mallopt=False)


def record(folder: Path, name: str) -> Path:
    """A program called `name` that prints its arguments and some of its environment."""
    path = folder / name
    path.write_text('#!/bin/sh\necho "port=$MASTER_PORT $@"\n')
    path.chmod(0o755)
    return path


def test_several_machines(tmp_path):
    python = record(tmp_path, 'python')
    machines = dict(PYTHON=str(python), NNODES='2', NODE_RANK='1', MASTER_ADDR='10.0.0.1', PORT='1234')
    done = subprocess.run(
        [str(SCRIPT), 'c.py', '8', '--amp'], env=ENVIRONMENT | machines, capture_output=True, text=True
    )
    where = '--nnodes 2 --node_rank 1 --master_addr 10.0.0.1 --master_port 1234 --nproc_per_node 8'
    tools = ROOT / 'tools'
    assert done.stdout.split(' ', 1)[1] == f'{tools}/launch.py {where} {tools}/train.py c.py --launcher pytorch --amp\n'


def test_slurm(tmp_path):
    record(tmp_path, 'srun')
    environment = ENVIRONMENT | dict(
        PATH=f'{tmp_path}:{os.environ["PATH"]}', GPUS='4', SRUN_ARGS='--qos high', PYTHON='py'
    )
    command = [str(ROOT / 'tools' / 'slurm_train.sh'), 'part', 'job', 'c.py', '--resume']
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    port, rest = done.stdout.split(' ', 1)
    assert 20000 <= int(port.removeprefix('port=')) < 30000
    assert rest == (
        '--partition part --job-name job --gres gpu:4 --ntasks 4 --ntasks-per-node 4 --cpus-per-task 5 '
        f'--kill-on-bad-exit=1 --qos high py -u {ROOT}/tools/train.py c.py --launcher slurm --resume\n'
    )


@pytest.mark.parametrize('script', ['dist_train.sh', 'slurm_train.sh'])
def test_scripts_say_how_to_call_them(script):
    path = str(ROOT / 'tools' / script)
    assert subprocess.run(['bash', '-n', path]).returncode == 0
    done = subprocess.run([path], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith('usage:')
