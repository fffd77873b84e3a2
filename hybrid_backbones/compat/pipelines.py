"""Errors of data pipelines name the file: MMEngine's end with the transform's own words, from a worker process."""

from types import ModuleType
from typing import Any

from . import import_hooks
from .log import log_patch

_FILES = ('img_path', 'seg_map_path')


class PipelineError(RuntimeError):
    """A transform of a data pipeline failed on one sample."""


def _patch_compose(module: ModuleType) -> None:
    def call(self: Any, data: dict) -> dict | None:
        for transform in self.transforms:
            given = data
            try:
                data = transform(data)
            except Exception as error:
                if (explained := _explain(transform, given, error)) is None:
                    raise
                raise explained from error
            if data is None:
                return None
        return data

    module.Compose.__call__ = call
    log_patch('pipelines', 'errors of data pipelines name the file of the sample')


def _explain(transform: Any, data: Any, error: Exception) -> PipelineError | None:
    """The error with the sample's files in its message; None where it names them already, or the sample has none."""
    files = [str(data[key]) for key in _FILES if data.get(key)] if isinstance(data, dict) else []
    if not files or any(file in str(error) for file in files):
        return None
    boxes = data.get('gt_bboxes')
    objects = f', with {len(boxes)} objects' if boxes is not None else ''
    return PipelineError(
        f'{type(transform).__name__} failed on {" with ".join(files)}{objects}: {type(error).__name__}: {error}'
    )


def install() -> None:
    import_hooks.after('mmengine.dataset.base_dataset', _patch_compose)
