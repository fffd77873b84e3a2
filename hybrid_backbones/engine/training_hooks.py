"""Hooks that stop a run, or warn, before it wastes time or writes worthless checkpoints."""

import logging
import math
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .model_checks import unwrap
from .nonfinite import first_nonfinite, is_finite
from .sampling import seed_iteration


def batch_samples(data_batch: Any) -> list[Any]:
    """The data samples of a batch, of those that name their files; of several branches, of all."""
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    branches = list(samples.values()) if isinstance(samples, dict) else [samples or []]
    return [sample for branch in branches for sample in branch if getattr(sample, 'img_path', None)]


def batch_images(data_batch: Any) -> list[str]:
    """Files that a batch was read from, of the samples that name theirs."""
    return [str(sample.img_path) for sample in batch_samples(data_batch)]


@HOOKS.register_module()
class CheckFiniteLossHook(Hook):
    """End training at the first loss that is not finite, before it reaches the weights, and report its origin.

    mmdet's CheckInvalidLossHook looks at one iteration in fifty. MMEngine brings each loss to the CPU in every
    iteration anyway, for its log, so that checking each costs nothing more. The module is found by a second forward
    pass over the same batch with the same random draws, after a loss that is not finite only.
    """

    def before_train(self, runner: Runner) -> None:
        wrapper = runner.optim_wrapper
        if not isinstance(wrapper, OptimWrapper):  # several optimizers; after_train_iter still checks
            return
        update = wrapper.update_params

        def update_params(loss: Tensor, *args, **kwargs) -> None:
            if not math.isfinite(loss.item()):
                self._stop(runner, *self._find(runner, {'loss': loss.item()}))
            update(loss, *args, **kwargs)

        wrapper.update_params = update_params

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self._batch = data_batch

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        values = {name: torch.as_tensor(value).item() for name, value in (outputs or {}).items() if 'loss' in name}
        if not all(map(math.isfinite, values.values())):
            self._stop(runner, values, 'the weights were updated from it already')

    def _find(self, runner: Runner, values: dict[str, float]) -> tuple[dict[str, float], str]:
        model, losses = unwrap(runner.model), {}
        seed_iteration(runner)
        with runner.optim_wrapper.optim_context(model):
            data = model.data_preprocessor(self._batch, True)
            if not is_finite(data):
                return values, 'the batch itself holds NaN or infinity, after the data preprocessor'
            cause = first_nonfinite(model, lambda: losses.update(model._run_forward(data, mode='loss')))
        if losses:  # each by its name, in place of their sum
            parsed = model.parse_losses(losses)[1]
            values = {name: value.item() for name, value in parsed.items() if 'loss' in name}
        return values, cause

    def _stop(self, runner: Runner, values: dict[str, float], cause: str) -> None:
        wrong = ', '.join(f'{name}={value}' for name, value in values.items())
        last = runner.message_hub.runtime_info.get('last_ckpt')
        raise FloatingPointError(
            f'the loss is not finite at iteration {runner.iter + 1} ({wrong}); images of this batch: '
            f'{", ".join(batch_images(self._batch)) or "unknown"}; {cause}. Training stops here; '
            + (f'the last checkpoint is {last}. ' if last else 'no checkpoint had been written yet. ')
            + 'Look at these images, lower optim_wrapper.optimizer.lr, or set optim_wrapper.clip_grad'
        )


def unset_statistics(model: nn.Module) -> list[str]:
    """Names of BatchNorms that keep their statistics in training, but still have the initial ones."""
    return [
        name
        for name, norm in model.train().named_modules()
        if isinstance(norm, _BatchNorm)
        and norm.track_running_stats
        and not norm.training
        and norm.running_mean.eq(0).all()
        and norm.running_var.eq(1).all()
    ]


@HOOKS.register_module()
class FixedStatisticsHook(Hook):
    """Warn of `norm_eval=True` or frozen stages without loaded weights: BatchNorm would not normalise."""

    def before_train(self, runner: Runner) -> None:
        if names := unset_statistics(runner.model):
            print_log(
                f'{len(names)} BatchNorm layers ({names[0]} ...) are to keep their statistics, but no weights were '
                "loaded that set them: they normalise nothing. Give init_cfg=dict(type='Pretrained', checkpoint=...) "
                'to the backbone, or train from scratch with model.backbone.norm_eval=False and frozen_stages=-1',
                'current',
                logging.WARNING,
            )
