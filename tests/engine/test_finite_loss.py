"""A loss that is not finite ends the run with a reason, and the last checkpoint stays good."""

import numpy as np
import pytest
import torch
from engine.models import Points, make_image_runner, make_runner
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.structures import BaseDataElement
from torch import nn

from hybrid_backbones.engine.checkpoint import latest_checkpoint
from hybrid_backbones.engine.nonfinite import first_nonfinite
from hybrid_backbones.engine.training_hooks import CheckFiniteLossHook, batch_images


def test_nan_image_stops_training(tmp_path, monkeypatch):
    runner = make_runner(tmp_path, max_iters=12, checkpoint=dict(interval=2))
    getitem, read = Points.__getitem__, []

    def poisoned(self, index):
        read.append(index)
        sample = getitem(self, index)
        if len(read) > 8:  # the fifth batch of two
            sample['inputs'][:] = np.nan
        return sample

    monkeypatch.setattr(Points, '__getitem__', poisoned)
    runner._val_loop = None  # evaluation reads the data too
    expected = r'at iteration 5 \(loss=nan\).*the batch itself holds NaN.*last checkpoint is .*iter_4\.pth'
    with pytest.raises(FloatingPointError, match=expected):
        runner.train()
    latest = latest_checkpoint(tmp_path)
    assert latest.name == 'iter_4.pth'
    state = torch.load(latest, weights_only=False)['state_dict']
    assert all(value.isfinite().all() for value in state.values())
    assert all(parameter.isfinite().all() for parameter in runner.model.parameters())


def test_message_names_the_images():
    samples = [BaseDataElement(metainfo=dict(img_path=f'{name}.jpg')) for name in 'ab']
    assert batch_images(dict(inputs=[], data_samples=samples)) == ['a.jpg', 'b.jpg']
    assert batch_images([1, 2]) == []


class Break(Hook):
    """From the third iteration on `action(model)` has happened."""

    def __init__(self, action) -> None:
        self.action = action

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == 2:
            self.action(runner.model)


class Reciprocal(nn.Module):
    def forward(self, x):
        return 1 / (x - x.flatten()[0])


def overflow(model):
    model.backbone.stages[2][0].norm2 = Reciprocal()


def spoil(model):
    model.neck.weight.data[0, 0] = torch.inf


def divide(model):
    parse = model.parse_losses
    model.parse_losses = lambda losses: parse({name: value / 0 for name, value in losses.items()})


@pytest.mark.parametrize(
    'action, cause',
    [
        (overflow, r'from finite inputs, is backbone\.stages\.2\.0\.norm2 \(Reciprocal\)'),
        (spoil, r'the parameter neck\.weight was not finite before this iteration'),
        (divide, r'every module puts out finite values'),
    ],
)
def test_the_cause_is_named(tmp_path, action, cause):
    runner = make_image_runner(tmp_path)
    runner.register_hook(Break(action))
    with pytest.raises(FloatingPointError, match=rf'at iteration 3 \(loss=(nan|inf)\).*{cause}'):
        runner.train()
    assert not any(module._forward_hooks for module in runner.model.modules())


def test_a_loss_of_the_second_of_two_optimizers_is_checked(tmp_path):
    runner = make_runner(tmp_path)
    optimizers = [torch.optim.SGD([nn.Parameter(torch.ones(()))], 0.1) for _ in range(2)]
    wrappers = OptimWrapperDict(**{name: OptimWrapper(o) for name, o in zip('ab', optimizers, strict=True)})
    hook, runner.optim_wrapper = CheckFiniteLossHook(), wrappers
    hook.before_train(runner)
    hook.before_train_iter(runner, 0, dict(inputs=[torch.ones(2)]))
    parameter = optimizers[1].param_groups[0]['params'][0]
    wrappers['a'].backward(parameter * 1)
    with pytest.raises(FloatingPointError, match='at iteration 1 '):
        wrappers['b'].update_params(parameter / 0)
    assert parameter == 1


def test_the_search_repeats_the_random_draws(tmp_path):
    """Dropout that fails for what it drew fails again: the second pass is that of the iteration."""

    class Drawn(nn.Module):
        seen = []

        def forward(self, x):
            self.seen.append(float(torch.rand(())))
            return x * torch.nan if len(self.seen) > 2 else x

    runner = make_image_runner(tmp_path)
    runner.model.neck = nn.Sequential(runner.model.neck, Drawn())
    with pytest.raises(FloatingPointError, match=r'at iteration 3 .*is neck\.1 \(Drawn\)'):
        runner.train()
    assert len(Drawn.seen) == 4  # three iterations, of which the finite ones ran once, and the search
    assert Drawn.seen[2] == Drawn.seen[3] != Drawn.seen[1]


def test_between_modules():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Identity(), nn.Identity()

        def forward(self, x):
            return self.second(dict(a=[self.first(x).sqrt()]))

    model = Root()
    assert 'second (Identity), whose inputs are not finite already' in first_nonfinite(
        model, lambda: model(torch.tensor([-1.0]))
    )
