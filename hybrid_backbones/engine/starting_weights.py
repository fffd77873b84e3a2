"""The weights that a run starts from: they are there before anything else happens, or the run is one from scratch."""

import logging
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner

from .._tasks import inner_model
from ..backbones.pyramid import PyramidBackbone
from ..checkpoints.errors import ByHandError, CheckpointError
from ..checkpoints.published import PERMISSIVE, SCHEME, list_published
from ..checkpoints.reading import local_file


def recommended_weights(backbone: str) -> str | None:
    """`hybrid://NAME` of the file that the index recommends for a backbone, the first of its family's table."""
    return next((f'{SCHEME}{row.name}' for row in list_published() if row.backbone == backbone), None)


def describe_weights(checkpoint: str) -> str:
    """The file, and its licence where it is one of the index."""
    rows = [row for row in list_published() if checkpoint == f'{SCHEME}{row.name}']
    if not rows:
        return checkpoint
    restriction = '' if rows[0].licence in PERMISSIVE else ', which restricts its use'
    return f'{checkpoint} ({rows[0].data}, {rows[0].licence}{restriction})'


def prepare_weights(cfg: Config, from_scratch: bool = False, required: bool = False) -> None:
    """See that the backbone's weights are on this machine, downloaded if need be, or make the run one from scratch.

    A run that resumes, or starts from a whole model, needs none, and continues as it was started.

    Args:
        cfg: The config to change: from scratch `init_cfg` is dropped, and norms and frozen stages learn.
        from_scratch: Start from random weights, whatever the config names.
        required: A file that can only be fetched by hand and is not there is an error; else the run is one from
            scratch, and a warning says so at its start, at every validation and at its end.

    Raises:
        CheckpointError: The file is not to be had; where to put it, and how to go on without.
    """
    backbone = inner_model(cfg.get('model', {})).get('backbone')
    if not _is_ours(backbone):
        if from_scratch:
            raise ValueError('--from-scratch is for configs whose backbone is one of ours')
        return
    if cfg.get('load_from'):
        _continue(cfg, backbone)
        return
    checkpoint = _checkpoint(backbone)
    if from_scratch or checkpoint is None:
        _start_from_scratch(cfg, backbone)
        return
    try:
        _find(checkpoint)
    except ByHandError as error:
        if required:
            raise
        _start_from_scratch(cfg, backbone)
        _add_warning(cfg, f'{checkpoint} is not on this machine: the backbone is trained from scratch.\n{error}')
    except CheckpointError as error:
        raise CheckpointError(f'{error}\nTo train from random weights instead, give --from-scratch') from error
    else:
        print_log(f'the backbone starts from {describe_weights(checkpoint)}', 'current')


def _is_ours(backbone: Any) -> bool:
    cls = MODELS.get(backbone['type']) if isinstance(backbone, dict) and isinstance(backbone.get('type'), str) else None
    return isinstance(cls, type) and issubclass(cls, PyramidBackbone)


def _checkpoint(backbone: dict[str, Any]) -> str | None:
    init_cfg = backbone.get('init_cfg') or {}
    return init_cfg.get('checkpoint') if isinstance(init_cfg, dict) else None


def _find(checkpoint: str) -> None:
    path = local_file(checkpoint)
    if not path.is_file():
        raise CheckpointError(f'no checkpoint at {path}, which model.backbone.init_cfg names')


def _start_from_scratch(cfg: Config, backbone: dict[str, Any]) -> None:
    """Drop the weights; BatchNorm's statistics, and stages that were frozen for these weights, learn."""
    named = backbone.pop('init_cfg', None) is not None
    changed = []
    if backbone.get('norm_eval'):
        backbone['norm_eval'] = False
        changed.append('norm_eval=False')
        if not cfg.get('sync_bn'):
            cfg.sync_bn = 'torch'
            changed.append("sync_bn='torch' (BatchNorm over all GPUs)")
    if backbone.get('frozen_stages', -1) >= 0 and named:
        backbone['frozen_stages'] = -1
        changed.append('frozen_stages=-1')
    settings = f', with {", ".join(changed)}' if changed else ''
    print_log(f'the backbone starts from random weights{settings}', 'current')


def _continue(cfg: Config, backbone: dict[str, Any]) -> None:
    """All weights come from `load_from`; a run that was started from scratch goes on under those settings."""
    dumped = Path(cfg.work_dir) / Path(cfg.filename or '').name
    if cfg.get('resume') and dumped.is_file():
        started = Config.fromfile(dumped, import_custom_modules=False).model
        started = inner_model(started).get('backbone', {})
        if _checkpoint(backbone) and not started.get('init_cfg'):
            _start_from_scratch(cfg, backbone)
    if checkpoint := _checkpoint(backbone):
        try:
            _find(checkpoint)
        except CheckpointError:
            backbone.pop('init_cfg')


def _add_warning(cfg: Config, text: str) -> None:
    cfg.missing_weights = text
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type='MissingWeightsHook', text=text)]


def framed(text: str) -> str:
    """`text` between two lines that are seen in a log."""
    line = '=' * max(map(len, text.splitlines()))
    return f'\n{line}\n{text}\n{line}'


@HOOKS.register_module()
class MissingWeightsHook(Hook):
    """Warn at the start and at every validation that the run does without the weights that its config names."""

    # After the hook that logs the metrics.
    priority = 'VERY_LOW'

    def __init__(self, text: str) -> None:
        self.text = text

    def before_train(self, runner: Runner) -> None:
        print_log(framed(self.text), 'current', logging.WARNING)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        # MMEngine's logger drops a warning that it has logged before, so each has its iteration.
        text = f'{self.text.splitlines()[0]} (iteration {runner.iter})'
        print_log(text, 'current', logging.WARNING)
