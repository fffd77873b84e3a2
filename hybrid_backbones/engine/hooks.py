"""Hooks that stop a run, with a reason, before it wastes time or writes worthless checkpoints."""

import math
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


def batch_images(data_batch: Any) -> list[str]:
    """Files that a batch was read from, as far as its samples tell."""
    samples = data_batch.get('data_samples', []) if isinstance(data_batch, dict) else []
    return [str(path) for sample in samples if (path := getattr(sample, 'img_path', None))]


@HOOKS.register_module()
class CheckFiniteLossHook(Hook):
    """Ends training at the first loss that is not finite, before a checkpoint is written from its weights.

    mmdet's CheckInvalidLossHook looks at one iteration in fifty. MMEngine brings each loss to the CPU in every
    iteration anyway, for its log, so that looking at each costs nothing more.
    """

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        values = {name: torch.as_tensor(value).item() for name, value in (outputs or {}).items() if 'loss' in name}
        if all(map(math.isfinite, values.values())):
            return
        wrong = ', '.join(f'{name}={value}' for name, value in values.items())
        last = runner.message_hub.runtime_info.get('last_ckpt')
        raise FloatingPointError(
            f'the loss is not finite at iteration {runner.iter + 1} ({wrong}); images of this batch: '
            f'{", ".join(batch_images(data_batch)) or "unknown"}. Training stops here; '
            + (f'the last checkpoint is {last}. ' if last else 'no checkpoint had been written yet. ')
            + 'Look at these images, lower optim_wrapper.optimizer.lr, or set optim_wrapper.clip_grad'
        )
