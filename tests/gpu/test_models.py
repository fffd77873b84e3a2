"""Detectors and segmentors train on a GPU in every precision."""

from pathlib import Path

import numpy as np
import pytest
from end_to_end.tiny import DETECTOR, SEGMENTOR

from hybrid_backbones.datasets.shapes import ensure_shapes
from hybrid_backbones.engine.run import train


@pytest.fixture(scope='module')
def shapes(tmp_path_factory) -> Path:
    return ensure_shapes(tmp_path_factory.mktemp('shapes') / 'data', num_train=8, num_val=1, size=64)


@pytest.mark.parametrize('precision', [None, 'bf16', 'fp16'])
@pytest.mark.parametrize('text', [DETECTOR, SEGMENTOR], ids=['detector', 'segmentor'])
def test_losses_are_finite(tmp_path, shapes, text, precision):
    config = tmp_path / 'config.py'
    config.write_text(text)
    options = {'train_dataloader.num_workers': 0, 'train_dataloader.persistent_workers': False}
    options['visualizer.name'] = str(tmp_path)
    options |= {'train_cfg.max_epochs': 1} if text is DETECTOR else {'train_cfg.max_iters': 4}
    runner = train(str(config), str(tmp_path / 'work'), str(shapes), amp=precision, options=options, mallopt=False)
    losses = np.array(runner.message_hub.get_scalar('train/loss')._log_history)
    assert len(losses) == 4
    assert np.isfinite(losses).all()
    assert all(p.is_cuda and p.isfinite().all() for p in runner.model.parameters())
