"""Several processes with the global batch of one, and the same seed, end with its weights."""

import statistics

import pytest
import torch
from engine.models import make_image_runner
from engine.processes import run_forked

VARIANTS = dict(
    plain=dict(),
    # Activations recomputed and stages frozen, the stem with them: DDP must neither miss nor await a gradient.
    frozen=dict(backbone=dict(frozen_stages=1, with_cp=True)),
    # Two iterations an update, whose gradients DDP adds up only at the second; clipped; averaged weights beside.
    accumulated=dict(
        optim_wrapper=dict(accumulative_counts=2, clip_grad=dict(max_norm=0.05)),
        custom_hooks=[dict(type='EMAHook', momentum=0.1)],
    ),
)


def train(folder, names: list[str], batch_size: int, launcher: str) -> dict[str, dict[str, torch.Tensor]]:
    """Trained weights of the variants; those of the average too, where there is one."""
    results = {}
    for name in names:
        variant = VARIANTS[name]
        runner = make_image_runner(
            folder / f'{name}_{batch_size}', batch_size=batch_size, launcher=launcher, max_iters=20, **variant
        )
        runner.train()
        results[name] = {key.removeprefix('module.'): value for key, value in runner.model.state_dict().items()}
        for hook in runner.hooks:
            if type(hook).__name__ == 'EMAHook':
                results[name] |= hook.ema_model.state_dict()
        results[name]['loss'] = torch.tensor(runner.message_hub.get_scalar('train/loss')._log_history)
    return results


def initial_weights(folder) -> dict[str, torch.Tensor]:
    return make_image_runner(folder).model.state_dict()


@pytest.fixture(scope='module')
def one(tmp_path_factory) -> dict[str, dict[str, torch.Tensor]]:
    (result,) = run_forked(folder := tmp_path_factory.mktemp('one'), 1, train, folder, [*VARIANTS], 4, 'none')
    return result


@pytest.mark.parametrize('processes, names', [(2, [*VARIANTS]), (4, ['plain'])])
def test_equal_to_one_process(tmp_path, one, processes, names):
    results = run_forked(tmp_path, processes, train, tmp_path, names, 4 // processes, 'pytorch')
    for name in names:
        expected = one[name]
        for result in results:
            assert result[name].keys() == expected.keys()
            for key, value in expected.items():
                if key != 'loss':
                    torch.testing.assert_close(result[name][key], value, rtol=0, atol=1e-5, msg=f'{name}: {key}')
        # Each sees its own images: the mean of their losses is that of the one process, and no single one is.
        losses = torch.stack([result[name]['loss'] for result in results])
        torch.testing.assert_close(losses.mean(0), expected['loss'], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(losses[0], expected['loss'], rtol=1e-2)


def test_training_moved_the_weights_that_it_should(one, tmp_path):
    """Or else the test above compares initial weights; and accumulation, clipping and freezing act."""
    (initial,) = run_forked(tmp_path, 1, initial_weights, tmp_path)
    moved = {
        name: {key: float((one[name][key] - value).abs().max()) for key, value in initial.items()} for name in VARIANTS
    }
    assert min(moved['plain'].values()) > 0
    assert statistics.median(moved['plain'].values()) > 1e-3  # a hundred times what processes may differ by
    still = {key for key, distance in moved['frozen'].items() if distance == 0}
    assert still == {key for key in initial if key.startswith(('backbone.downsample_layers.0', 'backbone.stages.0'))}
    assert not torch.allclose(one['plain']['head.weight'], one['accumulated']['head.weight'], atol=1e-3)
    assert not torch.allclose(one['accumulated']['module.head.weight'], one['accumulated']['head.weight'], atol=1e-4)
