"""`--amp bf16` and `--amp fp16` train detectors and segmentors, and bf16 learns what fp32 learns."""

from pathlib import Path

import numpy as np
import pytest
import torch
from end_to_end.tiny import DETECTOR, SEGMENTOR
from torch.nn.modules.module import register_module_forward_hook

from hybrid_backbones.datasets.shapes import ensure_shapes
from hybrid_backbones.engine.run import train

NAMES = dict(bf16='bfloat16', fp16='float16')


@pytest.fixture(scope='module')
def shapes(tmp_path_factory) -> Path:
    return ensure_shapes(tmp_path_factory.mktemp('shapes') / 'data', num_train=8, num_val=1, size=64)


def losses(runner) -> np.ndarray:
    return np.array(runner.message_hub.get_scalar('train/loss')._log_history)


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
@pytest.mark.parametrize('text', [DETECTOR, SEGMENTOR], ids=['detector', 'segmentor'])
def test_losses_are_finite(tmp_path, shapes, text, precision):
    config = tmp_path / 'config.py'
    config.write_text(text)
    by_epoch = text is DETECTOR
    options = {'train_dataloader.num_workers': 0, 'train_dataloader.persistent_workers': False}
    options['visualizer.name'] = str(tmp_path)  # or else the next run in this process gets this one's, with its folder
    options |= {'train_cfg.max_epochs': 1} if by_epoch else {'train_cfg.max_iters': 4}
    kinds = set()

    def look(module, args, output):
        if isinstance(module, torch.nn.Conv2d) and torch.is_grad_enabled():  # in training
            kinds.add(str(output.dtype).removeprefix('torch.'))

    handle = register_module_forward_hook(look)
    try:
        runner = train(str(config), str(tmp_path / 'work'), str(shapes), amp=precision, options=options, mallopt=False)
    finally:
        handle.remove()
    assert kinds == {NAMES[precision]}
    assert len(losses(runner)) == 4 and np.isfinite(losses(runner)).all()
    assert all(parameter.isfinite().all() for parameter in runner.model.parameters())


@pytest.mark.slow
def test_bf16_is_within_the_noise_of_fp32(tmp_path):
    """Final losses of three seeds each, on drawn shapes: precision matters less than the seed does."""
    data = ensure_shapes(tmp_path / 'data', num_train=64, num_val=1, size=64)
    config = tmp_path / 'segmentor.py'
    config.write_text(SEGMENTOR)
    final = {}
    for precision in (None, 'bf16', 'fp16'):
        for seed in range(3):
            options = {
                'randomness.seed': seed,
                'train_cfg.max_iters': 150,
                'param_scheduler.0.end': 150,
                'train_dataloader.batch_size': 4,
                'optim_wrapper.optimizer.lr': 3e-3,
                'model.backbone.layer_scale_init': 1.0,
                'default_hooks.checkpoint.interval': 1000,
            }
            folder = str(tmp_path / f'{precision}_{seed}')
            runner = train(str(config), folder, str(data), amp=precision, options=options, mallopt=False)
            history = losses(runner)
            final.setdefault(precision, []).append(history[-30:].mean())
            assert final[precision][-1] < 0.6 * history[:3].mean()  # it learns
    print({name: [round(float(value), 4) for value in values] for name, values in final.items()})
    noise = np.std(final[None], ddof=1)
    for precision in ('bf16', 'fp16'):
        assert abs(np.mean(final[precision]) - np.mean(final[None])) < 2 * noise
