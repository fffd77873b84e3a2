"""A run that pauses and is resumed ends as the unbroken one, also where learning rates follow the validations."""

import time
from pathlib import Path

import pytest
import torch
from engine.models import make_runner
from mmengine.hooks import EMAHook

from hybrid_backbones.engine.pausing import metrics_at_pause
from hybrid_backbones.engine.runs import read_work_dir

LOADER = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(type='Points'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='ResumableBatchSampler'),
)
# Six iterations an epoch.
BY_EPOCH = dict(
    train_cfg=dict(by_epoch=True, max_epochs=6, val_interval=2),
    train_dataloader=LOADER,
    default_hooks=dict(
        checkpoint=dict(type='SafeCheckpointHook', interval=2), logger=dict(type='LoggerHook', interval=1)
    ),
)
BY_ITER = dict(
    train_cfg=dict(by_epoch=False, max_iters=9, val_interval=4),
    train_dataloader=LOADER,
    default_hooks=dict(
        checkpoint=dict(type='SafeCheckpointHook', by_epoch=False, interval=4, max_keep_ckpts=1),
        logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
    ),
    log_processor=dict(by_epoch=False),
)


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    monkeypatch.setattr(time, 'sleep', lambda _: None)  # MMEngine's loop waits two seconds between passes


def make(folder: Path, until: int | None = None, resume: Path | None = None, **options):
    pause = [dict(type='PauseHook', at=until)] if until else []
    hooks = [dict(type='ReproducibleRunHook'), *options.pop('custom_hooks', []), *pause]
    return make_runner(folder, custom_hooks=hooks, resume=bool(resume), load_from=resume and str(resume), **options)


def weights(runner) -> torch.Tensor:
    return torch.cat([param.detach().flatten() for param in runner.model.parameters()])


@pytest.mark.parametrize(('options', 'until', 'file'), [(BY_ITER, 3, 'iter_3.pth'), (BY_EPOCH, 1, 'epoch_1.pth')])
def test_paused_and_resumed_equals_unbroken(tmp_path, options, until, file):
    """The metric improves with every validation that is made, and so would the learning rate see one more."""
    plateau = dict(type='ReduceOnPlateauLR', monitor='loss', rule='greater', patience=0)
    options = options | dict(param_scheduler=[plateau])
    unbroken = make(tmp_path / 'unbroken', **options)
    unbroken.train()

    paused = make(tmp_path / 'broken', until=until, **options)
    paused.train()
    assert metrics_at_pause(paused) == {'loss': 1.0}
    assert not torch.equal(weights(paused), weights(unbroken))
    assert [path.name for path in (tmp_path / 'broken').glob('*.pth')] == [file]
    assert read_work_dir(tmp_path / 'broken')[1] == {}

    resumed = make(tmp_path / 'broken', resume=tmp_path / 'broken' / file, **options)
    resumed.train()
    torch.testing.assert_close(weights(resumed), weights(unbroken), rtol=0, atol=0)
    assert resumed.optim_wrapper.get_lr() == unbroken.optim_wrapper.get_lr() != paused.optim_wrapper.get_lr()


def test_validation_of_the_schedule_counts_at_the_pause(tmp_path):
    runner = make(tmp_path, until=8, **BY_ITER)
    runner.train()
    assert metrics_at_pause(runner) == {'loss': 0.5}  # the second, after that of iteration 4
    assert read_work_dir(tmp_path)[1]['loss'][:, 0].tolist() == [4, 8]


def test_run_that_was_killed_between_checkpoint_and_validation_is_validated_without_training(tmp_path):
    make(tmp_path, until=3, **BY_ITER).train()
    again = make(tmp_path, until=3, resume=tmp_path / 'iter_3.pth', **BY_ITER)
    again.train()
    assert again.iter == 3
    assert metrics_at_pause(again) == {'loss': 1.0}


def test_averaged_weights_are_validated_where_the_run_averages(tmp_path):
    runner = make(tmp_path, until=3, **BY_ITER | dict(custom_hooks=[dict(type='EMAHook', momentum=0.5)]))
    validated = []
    runner.model.register_forward_pre_hook(
        lambda model, _: None if model.training else validated.append(weights(runner))
    )
    runner.train()
    (average,) = (hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook))
    expected = torch.cat([param.detach().flatten() for param in average.parameters()])
    torch.testing.assert_close(validated[0], expected, rtol=0, atol=0)
    assert not torch.equal(validated[0], weights(runner))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(val_dataloader=None, val_evaluator=None, val_cfg=None), 'without validation cannot pause'),
        (dict(default_hooks=dict(checkpoint=None)), 'without checkpoints cannot pause'),
        (
            dict(default_hooks=dict(checkpoint=dict(type='SafeCheckpointHook', by_epoch=True))),
            'by_epoch=True, but the run pauses by iterations; set it to False',
        ),
        (
            dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=2)),
            'a pause at iteration 3 is amid an update of accumulative_counts=2',
        ),
    ],
)
def test_runs_that_could_not_be_resumed_exactly_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, until=3, **BY_ITER | change).train()
