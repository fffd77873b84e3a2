"""tools/train.py, killed with SIGKILL in the middle of a run and resumed, ends with the unbroken run's weights."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from end_to_end.tiny import DETECTOR, ROOT, SEGMENTOR

from hybrid_backbones.datasets.shapes import ensure_shapes


def train_and_kill(config: Path, work_dir: Path, data: Path, at: str) -> None:
    """Run the command line in a process; kill it as soon as its log shows `at`."""
    command = [sys.executable, str(ROOT / 'tools' / 'train.py'), str(config), '--work-dir', str(work_dir)]
    process = subprocess.Popen(
        [*command, '--data-root', str(data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | dict(OMP_NUM_THREADS=str(torch.get_num_threads())),  # other sums differ in rounding
        start_new_session=True,
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(at, line):
            # Its data workers too: one may be left waiting for a reader of its pipe.
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL, ''.join(lines[-40:])


@pytest.fixture
def train(run_tool) -> Callable[..., str]:
    """Runs the command line in this process, which saves the seconds of its start; what it printed."""

    def train(config: Path, work_dir: Path, data: Path, *args: str) -> str:
        status, *printed = run_tool('train', config, '--work-dir', work_dir, '--data-root', data, '--no-mallopt', *args)
        assert status == 0
        return ''.join(printed)

    return train


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=False)['state_dict']


def assert_equal(path: Path, other: Path) -> None:
    ours, theirs = weights(path), weights(other)
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(
            ours[key], theirs[key], rtol=0, atol=1e-6, msg=lambda text, key=key: f'{key}: {text}'
        )


@pytest.fixture(scope='module')
def shapes(tmp_path_factory) -> Path:
    return ensure_shapes(tmp_path_factory.mktemp('shapes') / 'data', num_train=8, num_val=1, size=64)


def test_detector_by_epochs(tmp_path, shapes, train):
    config = tmp_path / 'detector.py'
    config.write_text(DETECTOR)
    train(config, tmp_path / 'unbroken', shapes)
    train_and_kill(config, tmp_path / 'broken', shapes, at=r'Epoch\(train\) +\[2\]\[2/4\]')
    assert [path.name for path in (tmp_path / 'broken').glob('*.pth')] == ['epoch_1.pth']
    # As a kill in the middle of MMEngine's own writing leaves it: half a file, newer than the good one.
    content = (tmp_path / 'broken' / 'epoch_1.pth').read_bytes()
    (tmp_path / 'broken' / 'epoch_2.pth').write_bytes(content[: len(content) // 2])
    (tmp_path / 'broken' / 'last_checkpoint').write_text(str(tmp_path / 'broken' / 'epoch_2.pth'))

    log = train(config, tmp_path / 'broken', shapes, '--resume')
    assert 'epoch_2.pth is damaged or incomplete' in log
    assert f'resuming from {tmp_path}/broken/epoch_1.pth' in log
    assert f'{tmp_path}/broken/epoch_3.pth' in log.split('Done. Written to')[1]
    assert_equal(tmp_path / 'broken' / 'epoch_3.pth', tmp_path / 'unbroken' / 'epoch_3.pth')
    assert any(
        (value - weights(tmp_path / 'broken' / 'epoch_1.pth')[key]).abs().max() > 1e-4
        for key, value in weights(tmp_path / 'broken' / 'epoch_3.pth').items()
        if value.is_floating_point()
    )


def test_segmentor_by_iterations(tmp_path, shapes, train):
    """Without a seed in the config: the resumed run takes that of the killed one."""
    config = tmp_path / 'segmentor.py'
    config.write_text(SEGMENTOR)
    train_and_kill(config, tmp_path / 'broken', shapes, at=r'Iter\(train\) +\[ *8/12\]')
    seed = torch.load(tmp_path / 'broken' / 'iter_5.pth', weights_only=False)['meta']['seed']
    train(config, tmp_path / 'broken', shapes, '--resume', str(tmp_path / 'broken' / 'iter_5.pth'))
    train(config, tmp_path / 'unbroken', shapes, '--cfg-options', f'randomness.seed={seed}')
    assert_equal(tmp_path / 'broken' / 'iter_12.pth', tmp_path / 'unbroken' / 'iter_12.pth')
