"""A hook that records the beginning of a run: the losses of its first iterations, and predictions after them."""

import json
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from ..._files import write_whole

# Of validation images that are predicted.
IMAGES = 16
ITERATIONS = 20


class Recorded(Exception):
    """The beginning of a run is recorded; what follows was not asked for."""


def record_beginning(cfg: Config, path: Path, *, stop: bool) -> Config:
    """Let a run write the losses of its first iterations and the predictions after them to `path`.

    Args:
        stop: End the run then, by :class:`Recorded`.
    """
    hook = dict(type=f'{__name__}.BeginningHook', path=str(path), stop=stop)
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]
    return cfg


class BeginningHook(Hook):
    """See :func:`record_beginning`. A run that continues another one records nothing."""

    def __init__(self, path: str, stop: bool) -> None:
        self.path, self.stop = Path(path), stop
        self.losses: list[float] | None = None

    def before_train(self, runner: Runner) -> None:
        self.losses = [] if runner.iter == 0 else None

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        if self.losses is None or outputs is None:
            return
        self.losses.append(float(outputs['loss']))
        if len(self.losses) < min(ITERATIONS, runner.max_iters):
            return
        if is_main_process():
            found = dict(
                device=next(runner.model.parameters()).device.type,
                losses=self.losses,
                confidences=_confidences(runner),
            )
            write_whole(self.path, json.dumps(found))
        self.losses = None
        if self.stop:
            raise Recorded


def _confidences(runner: Runner) -> list[float]:
    """How sure the network is of its predictions, by validation image; see `row_models.Fingerprint`."""
    if runner.val_loop is None:
        return []
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    dataset = runner.val_loop.dataloader.dataset
    model.eval()
    # The run goes on as if nothing had been predicted.
    with torch.random.fork_rng(), torch.no_grad():
        found = [_confidence(model, dataset[i]) for i in range(min(IMAGES, len(dataset)))]
    model.train()
    return found


def _confidence(model: nn.Module, image: dict) -> float:
    (sample,) = model.test_step(pseudo_collate([image]))
    if 'seg_logits' in sample:
        logits = sample.seg_logits.data.float()
        # One channel: the probability of the second of two classes, with mmseg's sigmoid.
        likeliest = logits.softmax(0).amax(0) if len(logits) > 1 else torch.maximum(logits, 1 - logits)
        return float(likeliest.mean())
    scores = sample.pred_instances.scores
    return float(scores.max()) if len(scores) else 0.0
