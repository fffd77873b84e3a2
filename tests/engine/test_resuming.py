"""A run that is stopped and resumed, in this process, ends with the weights of the unbroken one."""

import time

import pytest
import torch
from engine.models import make_image_runner, make_runner
from mmengine.hooks import EMAHook, Hook


class Stop(Exception):
    pass


class StopAt(Hook):
    """Ends the run in the middle of an iteration, as a kill does: nothing after it is saved."""

    priority = 'LOWEST'

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter + 1 == self.iteration:
            raise Stop


def weights(runner) -> torch.Tensor:
    return torch.cat([param.detach().flatten() for param in runner.model.parameters()])


def loader(sampler: str, num_workers: int) -> dict:
    return dict(
        batch_size=2,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        dataset=dict(type='Points'),
        sampler=dict(type=sampler, shuffle=True),
        batch_sampler=dict(type='ResumableBatchSampler'),
    )


@pytest.mark.parametrize('seed', [1, None])
@pytest.mark.parametrize('num_workers', [0, 1])
@pytest.mark.parametrize(
    'sampler, by_epoch', [('InfiniteSampler', False), ('DefaultSampler', False), ('DefaultSampler', True)]
)
def test_resumed_equals_unbroken(tmp_path, monkeypatch, sampler, by_epoch, num_workers, seed):
    """Twelve samples in batches of two, six iterations an epoch; stopped at 15, resumed from 14, or from epoch 2."""
    monkeypatch.setattr(time, 'sleep', lambda _: None)  # MMEngine's loop waits two seconds between passes
    length = dict(by_epoch=True, max_epochs=3) if by_epoch else dict(by_epoch=False, max_iters=18)
    checkpoint = dict(type='SafeCheckpointHook', by_epoch=by_epoch, interval=1 if by_epoch else 7)
    common = dict(
        train_cfg=length,
        train_dataloader=loader(sampler, num_workers),
        val_dataloader=None,
        val_evaluator=None,
        val_cfg=None,
        default_hooks=dict(checkpoint=checkpoint),
        param_scheduler=dict(type='CosineAnnealingLR', T_max=18, by_epoch=False),
    )
    broken = make_runner(tmp_path / 'broken', randomness=dict(seed=seed), **common)
    broken.register_hook(StopAt(15))
    with pytest.raises(Stop):
        broken.train()
    unbroken = make_runner(tmp_path / 'unbroken', randomness=dict(seed=broken.seed), **common)
    unbroken.train()
    torch.rand(100)
    # Without a seed in the config the resumed run draws another one, and must take the checkpoint's.
    saved = tmp_path / 'broken' / ('epoch_2.pth' if by_epoch else 'iter_14.pth')
    resumed = make_runner(tmp_path / 'broken', randomness=dict(seed=seed), load_from=str(saved), resume=True, **common)
    resumed.train()
    assert resumed.iter == unbroken.iter == 18
    torch.testing.assert_close(weights(resumed), weights(unbroken), rtol=0, atol=1e-7)


def average(runner) -> torch.Tensor:
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, EMAHook))
    return torch.cat([param.detach().flatten() for param in hook.ema_model.module.parameters()])


@pytest.mark.parametrize('precision', [None, 'bfloat16', 'float16'])
def test_accumulation_average_and_clipping_resume(tmp_path, precision):
    """Of two iterations an update; stopped amid one, resumed from the last whole one."""
    amp = dict(type='AmpOptimWrapper', dtype=precision) if precision else {}
    common = dict(
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=0.1), accumulative_counts=2, clip_grad=dict(max_norm=0.1), **amp
        ),
        custom_hooks=[
            dict(type='ReproducibleRunHook'),
            dict(type='StrictCheckpointHook'),
            dict(type='EMAHook', momentum=0.1),
        ],
        default_hooks=dict(checkpoint=dict(type='SafeCheckpointHook', by_epoch=False, interval=4)),
        max_iters=18,
    )
    broken = make_runner(tmp_path / 'broken', **common)
    broken.register_hook(StopAt(15))
    with pytest.raises(Stop):
        broken.train()
    unbroken = make_runner(tmp_path / 'unbroken', **common)
    unbroken.train()
    saved = tmp_path / 'broken' / 'iter_12.pth'
    resumed = make_runner(tmp_path / 'broken', load_from=str(saved), resume=True, **common)
    resumed.train()
    torch.testing.assert_close(weights(resumed), weights(unbroken), rtol=0, atol=1e-7)
    torch.testing.assert_close(average(resumed), average(unbroken), rtol=0, atol=1e-7)
    assert not torch.allclose(average(resumed), weights(resumed), atol=1e-3)
    assert not torch.allclose(weights(broken), weights(unbroken), atol=1e-4)
    if precision == 'float16':
        assert resumed.optim_wrapper.loss_scaler.state_dict() == unbroken.optim_wrapper.loss_scaler.state_dict()


def test_checkpoints_amid_an_update_are_refused(tmp_path, caplog):
    """Its gradients are nowhere in the checkpoint."""
    accumulated = dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=4)
    runner = make_runner(tmp_path / 'odd', checkpoint=dict(interval=6), optim_wrapper=accumulated)
    with pytest.raises(ValueError, match=r'checkpoint\.interval=6 is no multiple of accumulative_counts=4.*it to 8'):
        runner.train()
    best = dict(interval=8, save_best='loss', rule='less')
    runner = make_runner(tmp_path / 'best', checkpoint=best, optim_wrapper=accumulated)
    with pytest.raises(ValueError, match=r'val_interval=2 is no multiple of accumulative_counts=4.*it to 4'):
        runner.train()

    epochs = dict(
        train_cfg=dict(by_epoch=True, max_epochs=1),
        train_dataloader=loader('DefaultSampler', 0),
        default_hooks=dict(checkpoint=dict(type='SafeCheckpointHook')),
        log_level='WARNING',
    )
    runner = make_runner(tmp_path / 'epochs', optim_wrapper=accumulated, **epochs)
    runner.logger.addHandler(caplog.handler)
    runner.train()
    assert 'accumulative_counts=4 does not divide the 6 iterations of an epoch' in caplog.text


def test_accumulated_iterations_are_one_large_batch(tmp_path):
    """Two of two images move the weights as one of four does; images without random draws."""
    images = dict(custom_hooks=[], log_level='ERROR')
    whole = make_image_runner(tmp_path / 'whole', batch_size=4, max_iters=4, **images)
    parts = make_image_runner(
        tmp_path / 'parts', batch_size=2, max_iters=8, optim_wrapper=dict(accumulative_counts=2), **images
    )
    whole.train()
    parts.train()
    torch.testing.assert_close(weights(parts), weights(whole), rtol=0, atol=1e-5)


def test_seed_matters(tmp_path):
    """Or else the tests above compare constants."""
    results = [make_runner(tmp_path / str(seed), randomness=dict(seed=seed)) for seed in (1, 1, 2)]
    for runner in results:
        torch.nn.init.ones_(runner.model.linear.weight)
        runner.train()
    first, again, other = map(weights, results)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
