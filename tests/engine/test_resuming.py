"""A run that is stopped and resumed, in this process, ends with the weights of the unbroken one."""

import time

import pytest
import torch
from engine.models import make_runner
from mmengine.hooks import Hook


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


def test_seed_matters(tmp_path):
    """Or else the tests above compare constants."""
    results = [make_runner(tmp_path / str(seed), randomness=dict(seed=seed)) for seed in (1, 1, 2)]
    for runner in results:
        torch.nn.init.ones_(runner.model.linear.weight)
        runner.train()
    first, again, other = map(weights, results)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
