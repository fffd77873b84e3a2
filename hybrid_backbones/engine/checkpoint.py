"""Checkpoints that a kill cannot damage: written whole or not at all, and never the only good one deleted first."""

import logging
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner

_TEMPORARY = '.{name}.{pid}.partial'
_RESUMABLE = re.compile(r'(epoch|iter)_\d+\.pth')


@register_backend('hybrid_backbones.atomic', force=True)
class AtomicLocalBackend(LocalBackend):
    """Local files that appear under their name only when they are complete and on disk."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(_TEMPORARY.format(name=path.name, pid=os.getpid()))
        try:
            with temporary.open('wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

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
        for leftover in Path(self.out_dir).glob(_TEMPORARY.format(name='*', pid='*')):
            leftover.unlink()

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        with self._keep_until_saved():
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
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
