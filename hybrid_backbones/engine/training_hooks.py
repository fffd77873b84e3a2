"""Hooks that stop a run, or warn, before it wastes time or writes worthless checkpoints."""

import logging
import math
from collections.abc import Callable
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, OptimWrapperDict
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


def copy_to_host(number: Tensor) -> Callable[[], float]:
    """Start to copy a number, (), from its device.

    Returns:
        Waits for the copy, but for no later work of the device, and returns the number.
    """
    copy = number.detach().to('cpu', non_blocking=True)  # of a GPU's into pinned memory
    copied = torch.cuda.Event() if number.is_cuda else None
    if copied:
        copied.record()

    def read() -> float:
        if copied:
            copied.synchronize()
        return copy.item()

    return read


@HOOKS.register_module()
class CheckFiniteLossHook(Hook):
    """End training at the first loss that is not finite, before it reaches the weights, and report its origin.

    mmdet's CheckInvalidLossHook looks at one iteration in fifty. Here the loss is copied to the host while the backward
    pass is queued, and checked before the update: a GPU has the backward pass to do while the host waits for the copy.
    The module is found by a second forward pass over the same batch with the same random draws, after a loss that is
    not finite only.
    """

    def before_train(self, runner: Runner) -> None:
        wrapper = runner.optim_wrapper
        for one in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
            one.backward = self._checked(one, runner)

    def _checked(self, wrapper: OptimWrapper, runner: Runner) -> Callable[..., None]:
        backward = wrapper.backward

        def checked(loss: Tensor, **kwargs) -> None:
            read = copy_to_host(loss)
            backward(loss, **kwargs)
            if not math.isfinite(value := read()):
                self._stop(runner, *self._find(runner, wrapper, {'loss': value}))

        return checked

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self._batch = data_batch

    def _find(self, runner: Runner, wrapper: OptimWrapper, values: dict[str, float]) -> tuple[dict[str, float], str]:
        model, losses = unwrap(runner.model), {}
        seed_iteration(runner)
        with wrapper.optim_context(model):
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
