"""Training that pauses, to be resumed exactly or not at all: a race stops there those that are behind."""

from pathlib import Path
from typing import Any

from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner


@HOOKS.register_module()
class PauseHook(Hook):
    """End training after `at` iterations, or epochs where the loop counts those, with a checkpoint and a validation.

    The schedule remains that of the whole run, so that the run continues from the checkpoint as if it had never paused.
    Where the schedule has no validation, one is made that leaves no trace in the run: neither the log, nor the choice
    of the best checkpoint, nor a learning rate that depends on metrics. A run that resumes beyond `at` is validated as
    it is.

    Args:
        at: Position in the schedule, in the unit of the training loop.
    """

    # After the checkpoint of the same iteration.
    priority = 'LOWEST'

    def __init__(self, at: int) -> None:
        self.at = at
        self.metrics: dict[str, float] | None = None

    def before_train(self, runner: Runner) -> None:
        self._check(runner)
        if position(runner) >= self.at:
            runner.train_loop.stop_training = True

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if _counts_iterations(runner) and runner.iter + 1 == self.at:
            self._stop(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        if not _counts_iterations(runner) and runner.epoch + 1 == self.at:
            self._stop(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Keep the metrics of a validation that the schedule has at the pause."""
        if position(runner) >= self.at:
            self.metrics = metrics

    def after_train(self, runner: Runner) -> None:
        if self.metrics is None:
            self.metrics = _validate_unnoticed(runner)

    def _stop(self, runner: Runner) -> None:
        runner.train_loop.stop_training = True
        hook = _checkpoint_hook(runner)
        name = hook.filename_tmpl.format(self.at)
        if hook.last_ckpt is None or Path(hook.last_ckpt).name != name:
            hook._save_checkpoint(runner)

    def _check(self, runner: Runner) -> None:
        """That the run can pause, and be resumed exactly."""
        if not isinstance(runner.train_loop, (IterBasedTrainLoop, EpochBasedTrainLoop)):
            raise ValueError(
                f'a {type(runner.train_loop).__name__} cannot pause; use an IterBasedTrainLoop or an '
                'EpochBasedTrainLoop in train_cfg'
            )
        if runner.val_loop is None:
            raise ValueError('a run without validation cannot pause: give val_cfg, val_dataloader and val_evaluator')
        by_epoch = not _counts_iterations(runner)
        if _checkpoint_hook(runner).by_epoch != by_epoch:
            raise ValueError(
                f'default_hooks.checkpoint.by_epoch={not by_epoch}, but the run pauses by '
                f'{"epochs" if by_epoch else "iterations"}; set it to {by_epoch}'
            )
        counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        if not by_epoch and self.at % counts:
            raise ValueError(
                f'a pause at iteration {self.at} is amid an update of accumulative_counts={counts} iterations, whose '
                'gradients no checkpoint holds; pause at a multiple'
            )


def position(runner: Runner) -> int:
    """Iterations done, or epochs where the loop counts those."""
    return runner.iter if _counts_iterations(runner) else runner.epoch


def metrics_at_pause(runner: Runner) -> dict[str, float]:
    """What the validation of a run that paused gave."""
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, PauseHook))
    return hook.metrics


def _counts_iterations(runner: Runner) -> bool:
    return isinstance(runner.train_loop, IterBasedTrainLoop)


def _checkpoint_hook(runner: Runner) -> CheckpointHook:
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            return hook
    raise ValueError('a run without checkpoints cannot pause: give default_hooks.checkpoint')


def _validate_unnoticed(runner: Runner) -> dict[str, float]:
    """Metrics of the run's validation; of the hooks, only those take part that choose the weights."""
    hooks = runner._hooks
    runner._hooks = [hook for hook in hooks if isinstance(hook, EMAHook)]
    try:
        return runner.val_loop.run()
    finally:
        runner._hooks = hooks
