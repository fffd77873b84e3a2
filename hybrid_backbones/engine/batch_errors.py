"""Errors of a model name the files of the batch that it failed on."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .training_hooks import batch_samples

# What torch raises for targets out of bounds, masks of another size and empty concatenations.
_OF_DATA = (RuntimeError, IndexError, ValueError, TypeError, AssertionError, KeyError)


class BatchError(RuntimeError):
    """A model failed on a batch."""


@HOOKS.register_module()
class NameBatchHook(Hook):
    """Add to an error of the model the files of its batch, with what they hold.

    PyTorch's own say no more than `Target 9 is out of bounds`, thousands of iterations into a run. Errors of memory and
    those that name a file of the batch are left as they are.
    """

    def before_train(self, runner: Runner) -> None:
        self._wrap(runner, 'train_step')

    def before_val(self, runner: Runner) -> None:
        self._wrap(runner, 'val_step')

    def before_test(self, runner: Runner) -> None:
        self._wrap(runner, 'test_step')

    def _wrap(self, runner: Runner, name: str) -> None:
        step = getattr(runner.model, name)
        if not hasattr(step, '__wrapped__'):  # validation begins many times
            setattr(runner.model, name, _naming_batch(step))


def _naming_batch(step: Callable) -> Callable:
    @functools.wraps(step)
    def explained(data: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return step(data, *args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except _OF_DATA as error:
            samples = batch_samples(data)
            if not samples or any(str(sample.get('img_path')) in str(error) for sample in samples):
                raise
            listed = '\n  '.join(map(_describe, samples))
            text = f'{type(error).__name__}: {str(error).strip()}\nin the model, on the batch of\n  {listed}'
            raise BatchError(text) from error

    return explained


def _describe(sample: Any) -> str:
    """File, size, and number, labels and mask size of the objects, or values of the label map."""
    parts = [f'{sample.get("img_path")}: image {_size(sample.get("img_shape"))}']
    if 'gt_instances' in sample:
        instances = sample.gt_instances
        parts.append(f'{len(instances)} objects')
        if len(instances) and 'labels' in instances:
            parts.append(f'labels {int(instances.labels.min())} to {int(instances.labels.max())}')
        if 'masks' in instances:
            parts.append(f'masks {_size((instances.masks.height, instances.masks.width))}')
    if 'gt_sem_seg' in sample:
        labels = sample.gt_sem_seg.data
        values = ', '.join(map(str, labels.unique().tolist()))
        parts.append(f'label map {_size(labels.shape[-2:])} of values {values}')
    return ', '.join(parts)


def _size(shape: Any) -> str:
    return f'{shape[1]} x {shape[0]}' if shape else 'of unknown size'
