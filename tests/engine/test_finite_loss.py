"""A loss that is not finite ends the run with a reason, and the last checkpoint stays good."""

import numpy as np
import pytest
import torch
from engine.models import Points, make_runner
from mmengine.structures import BaseDataElement

from hybrid_backbones.engine.checkpoint import latest_checkpoint
from hybrid_backbones.engine.hooks import batch_images


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
    with pytest.raises(FloatingPointError, match=r'at iteration 5 \(loss=nan\).*last checkpoint is .*iter_4\.pth'):
        runner.train()
    latest = latest_checkpoint(tmp_path)
    assert latest.name == 'iter_4.pth'
    state = torch.load(latest, weights_only=False)['state_dict']
    assert all(value.isfinite().all() for value in state.values())


def test_message_names_the_images():
    samples = [BaseDataElement(metainfo=dict(img_path=f'{name}.jpg')) for name in 'ab']
    assert batch_images(dict(inputs=[], data_samples=samples)) == ['a.jpg', 'b.jpg']
    assert batch_images([1, 2]) == []
