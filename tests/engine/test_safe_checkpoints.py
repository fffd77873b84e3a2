"""Checkpoints appear whole or not at all, and the newest intact one is found."""

import ctypes
import errno
import os
import re
import resource
import time
from pathlib import Path

import pytest
import torch
from engine.models import FallingLoss, make_runner
from engine.processes import run_forked
from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook

from hybrid_backbones.engine.checkpoint import AtomicLocalBackend, is_intact, latest_checkpoint

NO_EVALUATION = dict(val_dataloader=None, val_evaluator=None, val_cfg=None)


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
        raise OSError(errno.EIO, 'disk on fire')

    monkeypatch.setattr(os, 'fsync', fail)
    with pytest.raises(OSError, match=rf'cannot write {path}, 3 bytes \(disk on fire; [\d,]+ bytes are free there\)'):
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


def test_best_waits_for_a_metric(tmp_path, monkeypatch):
    """mmdet computes no AP where a detector finds nothing, as at its first validation."""
    values = iter([{}, dict(loss=2.0), {}])
    monkeypatch.setattr(FallingLoss, 'compute_metrics', lambda self, results: next(values))
    make_runner(tmp_path, checkpoint=dict(interval=2, save_best='loss', rule='less')).train()
    assert [path.name for path in tmp_path.glob('best_*')] == ['best_loss_iter_4.pth']


class Killed(BaseException):
    pass


@pytest.mark.parametrize('during', ['last', 'best'])
def test_the_old_checkpoint_outlives_the_writing_of_the_new(tmp_path, monkeypatch, during):
    """`max_keep_ckpts=1` in MMEngine deletes the only checkpoint before it writes the next."""
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
    make_runner(tmp_path, max_iters=6, checkpoint=dict(interval=2, max_keep_ckpts=1)).train()
    assert [path.name for path in tmp_path.glob('*.pth')] == ['iter_6.pth']
    assert latest_checkpoint(tmp_path).name == 'iter_6.pth'
    assert not list(tmp_path.glob('.*.partial'))


class FillDisk(Hook):
    """At the third iteration, after the first checkpoint and before the second, `fill()` happens."""

    def __init__(self, fill) -> None:
        self.fill = fill

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == 2:
            self.fill()


def train_until_full(folder: Path, fill) -> str:
    """Train in `folder`, where the second checkpoint finds no room; what the run stopped with."""
    runner = make_runner(folder, checkpoint=dict(interval=2, max_keep_ckpts=1))
    runner.register_hook(FillDisk(fill))
    with pytest.raises(OSError) as caught:
        runner.train()
    assert (folder / 'last_checkpoint').read_text() == str(folder / 'iter_2.pth')
    assert latest_checkpoint(folder).name == 'iter_2.pth'
    assert not (folder / 'iter_4.pth').exists()
    assert not list(folder.glob('.*.partial'))
    return str(caught.value)


def assert_says_what_to_do(message: str, folder: Path, cause: str) -> None:
    pattern = rf'cannot write {folder}/iter_4\.pth, [\d,]+ bytes \({cause}; [\d,]+ bytes are free there\).*--resume'
    assert re.search(pattern, message), message


def test_quota_keeps_the_previous_checkpoint_and_stops(tmp_path):
    """The run cannot write files as large as a checkpoint; half of it is written when the system refuses."""
    previous = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        half = (tmp_path / 'iter_2.pth').stat().st_size // 2
        resource.setrlimit(resource.RLIMIT_FSIZE, (half, previous[1]))

    try:
        message = train_until_full(tmp_path, fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, previous)
    assert_says_what_to_do(message, tmp_path, 'File too large')
    resumed = make_runner(tmp_path, load_from=str(latest_checkpoint(tmp_path)), resume=True)
    resumed.train()
    assert latest_checkpoint(tmp_path).name == 'iter_6.pth'


def mount_small_disk(folder: Path) -> None:
    """Mount a megabyte of memory at `folder`, for this process alone: in namespaces of users and mounts of its own."""
    libc, user, group = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
    new_user, new_mounts = 0x10000000, 0x00020000
    if libc.unshare(new_user | new_mounts):
        raise OSError(ctypes.get_errno(), 'unshare')
    for name, text in (('setgroups', 'deny'), ('uid_map', f'{user} {user} 1'), ('gid_map', f'{group} {group} 1')):
        Path('/proc/self', name).write_text(text)
    if libc.mount(b'tmpfs', bytes(folder), b'tmpfs', 0, b'size=1m'):
        raise OSError(ctypes.get_errno(), 'mount')


def train_on_small_disk(disk: Path) -> str:
    """Where the second checkpoint finds half the room that it needs; what the run stopped with."""
    try:
        mount_small_disk(disk)
    except OSError as error:
        return f'no mount: {error}'

    def fill():
        free = os.statvfs(disk)
        size = free.f_bavail * free.f_frsize - (disk / 'iter_2.pth').stat().st_size // 2
        (disk / 'other_data').write_bytes(bytes(size))

    return train_until_full(disk, fill)


def test_full_file_system_keeps_the_previous_checkpoint_and_stops(tmp_path):
    """The same on a real file system of a megabyte, which only a process of its own can see."""
    disk = tmp_path / 'disk'
    disk.mkdir()

    (message,) = run_forked(tmp_path, 1, train_on_small_disk, disk)
    if message.startswith('no mount'):
        pytest.skip(message)
    assert not list(disk.iterdir())  # it was mounted where nobody else sees it
    assert_says_what_to_do(message, disk, 'No space left on device')


def test_last_checkpoint_is_written_whole_and_after_its_checkpoint(tmp_path, monkeypatch):
    written, put = [], AtomicLocalBackend.put

    def record(self, obj, filepath):
        put(self, obj, filepath)
        written.append(Path(filepath).name)
        note = tmp_path / 'last_checkpoint'
        assert not note.exists() or is_intact(Path(note.read_text()))

    monkeypatch.setattr(AtomicLocalBackend, 'put', record)
    make_runner(tmp_path, max_iters=4, checkpoint=dict(interval=2), **NO_EVALUATION).train()
    assert written == ['iter_2.pth', 'last_checkpoint', 'iter_4.pth', 'last_checkpoint']


def test_best_is_kept_by_metric(tmp_path, monkeypatch):
    """The metric gets better, worse, and better than ever: the second is not kept, the third replaces the first."""
    values = iter([3.0, 4.0, 2.0])
    monkeypatch.setattr(FallingLoss, 'compute_metrics', lambda self, results: dict(loss=next(values)))
    kept = []

    class Look(Hook):
        priority = 'LOWEST'

        def after_val_epoch(self, runner, metrics=None) -> None:
            kept.append([path.name for path in tmp_path.glob('best_*')])

    runner = make_runner(tmp_path, checkpoint=dict(interval=2, save_best='loss', rule='less'))
    runner.register_hook(Look())
    runner.train()
    assert kept == [['best_loss_iter_2.pth'], ['best_loss_iter_2.pth'], ['best_loss_iter_6.pth']]
    assert is_intact(tmp_path / 'best_loss_iter_6.pth')
