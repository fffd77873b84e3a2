"""Checkpoints that a killed process cannot damage: written atomically, old ones deleted last."""

import logging
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .._files import remove_leftovers, write_whole

_RESUMABLE = re.compile(r'(epoch|iter)_\d+\.pth')


@register_backend('hybrid_backbones.atomic', force=True)
class AtomicLocalBackend(LocalBackend):
    """Local files that appear under their name only when they are complete and on disk.

    Raises:
        OSError: A file cannot be written. Nothing of it is left; what was there under its name stays.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        path = Path(filepath)
        try:
            write_whole(path, obj)
        except OSError as error:
            free = shutil.disk_usage(path.parent).free
            raise OSError(
                error.errno,
                f'cannot write {path}, {len(obj):,} bytes ({error.strerror or error}; {free:,} bytes are free there). '
                'Earlier checkpoints are untouched: make room, or lower max_keep_ckpts, and continue with --resume',
            ) from error

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        self.put(obj.encode(encoding), filepath)


class _KeepUntilSaved:
    """A file backend that notes removals, to be done once the new checkpoint is safe."""

    def __init__(self, backend: LocalBackend) -> None:
        self.backend = backend
        self.removals = []

    def __getattr__(self, name: str):
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self.removals.append(path)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook, with files written atomically and old ones deleted after the new one is complete.

    Takes the same arguments. With `backend_args` for another storage, that storage decides about atomic writes.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.backend_args is None and self.file_client_args is None:
            self.backend_args = dict(backend='hybrid_backbones.atomic')

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self._check_windows(runner)
        remove_leftovers(self.out_dir)

    def _check_windows(self, runner: Runner) -> None:
        """Checkpoints do not hold the gradients of a half-accumulated update: one written then resumes inexactly."""
        counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        if self.by_epoch:
            if len(runner.train_dataloader) % counts:
                print_log(
                    f'accumulative_counts={counts} does not divide the {len(runner.train_dataloader)} iterations of an '
                    'epoch: a resumed run loses the gradients since the last update. For exact resuming save by '
                    'iterations: default_hooks.checkpoint=dict(by_epoch=False, interval=...)',
                    'current',
                    logging.WARNING,
                )
            return
        intervals = {'default_hooks.checkpoint.interval': self.interval}
        if self.save_best and runner.val_loop is not None:  # the best one is noted in a checkpoint written anew
            intervals['train_cfg.val_interval'] = runner.val_interval
        for name, interval in intervals.items():
            if interval > 0 and interval % counts:
                raise ValueError(
                    f'{name}={interval} is no multiple of accumulative_counts={counts}: a checkpoint would be written '
                    f'amid an update, whose gradients it does not hold. Set it to {-(-interval // counts) * counts}'
                )

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        outdated = self._add_to_kept(runner, step)
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if not is_main_process():
            return
        AtomicLocalBackend().put_text(self.last_ckpt, Path(runner.work_dir) / 'last_checkpoint')
        if outdated is not None and self.file_backend.isfile(outdated):
            self.file_backend.remove(outdated)
        elif outdated is not None and self.file_backend.isdir(outdated):  # DeepSpeed's are folders
            self.file_backend.rmtree(outdated)

    def _add_to_kept(self, runner: Runner, step: int) -> str | None:
        """Count the checkpoint of `step` among those to keep; returns the one that it replaces."""
        kept = getattr(self, 'keep_ckpt_ids', None)
        if kept is None or (kept and kept[-1] == step):  # the latter: written again, to note the best
            return None
        first = kept[0] if len(kept) == self.max_keep_ckpts else None
        kept.append(step)  # a full deque drops its first
        runner.message_hub.update_info('keep_ckpt_ids', list(kept))
        return None if first is None else self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(first))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if self.save_best and not metrics.keys() >= set(self.key_indicators) - {'auto'}:
            # mmdet computes no AP where a detector finds nothing.
            print_log(f'no best checkpoint yet: {", ".join(self.key_indicators)} was not computed', 'current')
            return
        with self._keep_until_saved():
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _keep_until_saved(self) -> Iterator[None]:
        backend = self.file_backend
        self.file_backend = _KeepUntilSaved(backend)
        try:
            yield
            for path in self.file_backend.removals:
                backend.remove(path)
        finally:
            self.file_backend = backend


def is_intact(path: Path) -> bool:
    """Whether the checkpoint file is complete: PyTorch's format is a zip archive with checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """The checkpoint to resume from: the one noted in `last_checkpoint`, or else the newest intact one, or None."""
    folder = Path(work_dir)
    note = folder / 'last_checkpoint'
    noted = Path(note.read_text().strip()).name if note.is_file() else ''
    written = [path for path in folder.glob('*.pth') if _RESUMABLE.fullmatch(path.name)]
    written.sort(key=lambda path: (path.name == noted, path.stat().st_mtime), reverse=True)
    for path in written:
        if is_intact(path):
            return path
        print_log(f'{path} is damaged or incomplete: not used', logger='current', level=logging.WARNING)
    return None
