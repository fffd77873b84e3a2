"""Checkpoints appear whole or not at all, and the newest intact one is found."""

import os
import time
from pathlib import Path

import pytest
import torch
from mmengine.fileio import LocalBackend

from hybrid_backbones.engine.checkpoint import AtomicLocalBackend, is_intact, latest_checkpoint


def save(path: Path, value: float = 1.0, age: float = 0) -> Path:
    torch.save({'state_dict': {'weight': torch.full((1000,), value)}}, path)
    os.utime(path, (time.time() - age,) * 2)
    return path


def truncate(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-100])
    return path


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'epoch_1.pth'
    backend = AtomicLocalBackend()
    backend.put(b'old', path)

    def fail(*_):
        raise OSError('disk full')

    monkeypatch.setattr(os, 'fsync', fail)
    with pytest.raises(OSError, match='disk full'):
        backend.put(b'new', path)
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_appears_under_the_name_before_it_is_complete(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, 'fsync', lambda _: seen.extend(path.name for path in tmp_path.iterdir()))
    AtomicLocalBackend().put(b'content', tmp_path / 'epoch_1.pth')
    assert seen and 'epoch_1.pth' not in seen
    assert not any(name.endswith('.pth') for name in seen)  # nor under a name that the search would take


def test_intact(tmp_path):
    good = save(tmp_path / 'good.pth')
    assert is_intact(good)
    flipped = bytearray(good.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (tmp_path / 'flipped.pth').write_bytes(flipped)
    assert not is_intact(tmp_path / 'flipped.pth')
    assert not is_intact(truncate(save(tmp_path / 'short.pth')))
    (tmp_path / 'empty.pth').touch()
    assert not is_intact(tmp_path / 'empty.pth')
    assert not is_intact(tmp_path / 'absent.pth')


def test_latest(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    old, new = save(tmp_path / 'epoch_1.pth', age=10), save(tmp_path / 'epoch_2.pth')
    save(tmp_path / 'best_coco_bbox_mAP_epoch_2.pth', age=-10)  # has no optimizer state
    assert latest_checkpoint(tmp_path) == new
    note = tmp_path / 'last_checkpoint'
    note.write_text(f'/moved/since/{old.name}')
    assert latest_checkpoint(tmp_path) == old
    note.write_text('')  # killed while writing the note
    assert latest_checkpoint(tmp_path) == new
    note.write_text(str(new))
    truncate(new)
    assert latest_checkpoint(tmp_path) == old
    truncate(old)
    assert latest_checkpoint(tmp_path) is None


class Killed(BaseException):
    pass


@pytest.mark.parametrize('during', ['last', 'best'])
def test_the_old_checkpoint_outlives_the_writing_of_the_new(tmp_path, monkeypatch, during):
    """`max_keep_ckpts=1` in MMEngine deletes the only checkpoint before it writes the next."""
    from engine.models import make_runner

    runner = make_runner(
        tmp_path, max_iters=6, checkpoint=dict(interval=2, max_keep_ckpts=1, save_best='auto', rule='less')
    )
    put, name = AtomicLocalBackend.put, 'iter_4.pth' if during == 'last' else 'best_loss_iter_4.pth'

    def killed(self, obj, filepath):
        if Path(filepath).name == name:
            LocalBackend.put(self, obj[: len(obj) // 2], f'{filepath}.partial')
            raise Killed
        put(self, obj, filepath)

    monkeypatch.setattr(AtomicLocalBackend, 'put', killed)
    with pytest.raises(Killed):
        runner.train()
    best = list(tmp_path.glob('best_*.pth'))
    assert len(best) == 1 and is_intact(best[0])
    latest = latest_checkpoint(tmp_path)
    assert latest.name == ('iter_2.pth' if during == 'last' else 'iter_4.pth')


def test_finished_run_keeps_as_many_as_asked(tmp_path):
    from engine.models import make_runner

    make_runner(tmp_path, max_iters=6, checkpoint=dict(interval=2, max_keep_ckpts=1)).train()
    assert [path.name for path in tmp_path.glob('*.pth')] == ['iter_6.pth']
    assert latest_checkpoint(tmp_path).name == 'iter_6.pth'
    assert not list(tmp_path.glob('.*.partial'))
