"""Errors of a model name the files of the batch, and what they hold."""

import numpy as np
import pytest
import torch
from engine.models import Points, make_runner
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData

from hybrid_backbones.engine.batch_errors import BatchError, _naming_batch


def sample(name: str, labels: list[int], size: tuple[int, int] = (8, 6)) -> DetDataSample:
    sample = DetDataSample(metainfo=dict(img_path=f'{name}.jpg', img_shape=size))
    sample.gt_instances = InstanceData(
        labels=torch.tensor(labels, dtype=torch.long), bboxes=torch.zeros(len(labels), 4)
    )
    return sample


def test_targets_out_of_bounds():
    def step(data):
        labels = torch.cat([sample.gt_instances.labels for sample in data['data_samples']])
        return torch.nn.functional.cross_entropy(torch.zeros(len(labels), 3), labels)

    step = _naming_batch(step)
    step(dict(data_samples=[sample('a', [0, 2])]))
    with pytest.raises(BatchError) as error:
        step(dict(data_samples=[sample('a', [0, 2]), sample('b', [1, 9, 4]), sample('c', [])]))
    assert str(error.value).splitlines() == [
        'IndexError: Target 9 is out of bounds.',
        'in the model, on the batch of',
        '  a.jpg: image 6 x 8, 2 objects, labels 0 to 2',
        '  b.jpg: image 6 x 8, 3 objects, labels 1 to 9',
        '  c.jpg: image 6 x 8, 0 objects',
    ]


def test_label_maps_and_masks():
    from mmdet.structures.mask import BitmapMasks

    first, second = sample('a', [1]), sample('b', [1])
    first.gt_sem_seg = PixelData(data=torch.tensor([[[0, 255], [3, 0]]]))
    second.gt_instances.masks = BitmapMasks(np.zeros((1, 4, 5), np.uint8), 4, 5)

    def step(data):
        return torch.cat([])

    with pytest.raises(BatchError, match=r'(?s)non-empty list.*map 2 x 2 of values 0, 3, 255\n.*masks 5 x 4'):
        _naming_batch(step)(dict(data_samples=dict(sup=[first], unsup=[second])))


def test_other_errors_stay():
    def step(data):
        raise data['error']

    named = [sample('a', [1])]
    for error in (torch.OutOfMemoryError('no memory'), FloatingPointError('nan'), ValueError('a.jpg is wrong')):
        with pytest.raises(type(error), match=str(error)):
            _naming_batch(step)(dict(error=error, data_samples=named))
    with pytest.raises(ValueError, match='no samples'):
        _naming_batch(step)(dict(error=ValueError('no samples'), data_samples=[]))


@pytest.mark.parametrize('mode', ['train', 'val'])
def test_in_a_run(tmp_path, monkeypatch, mode):
    """The second batch fails."""
    getitem = Points.__getitem__
    runner = make_runner(tmp_path, custom_hooks=[dict(type='NameBatchHook')])
    read = []

    def with_sample(self, index):
        read.append(index)
        return dict(getitem(self, index), data_samples=sample(f'{index}', [5]))

    monkeypatch.setattr(Points, '__getitem__', with_sample)
    forward = runner.model.forward

    def failing(*args, data_samples, mode='tensor', **kwargs):
        if len(read) > 4:
            raise RuntimeError('stack expects each tensor to be equal size')
        return forward(*args, mode=mode, **kwargs)

    monkeypatch.setattr(runner.model, 'forward', failing)
    with pytest.raises(BatchError) as error:
        getattr(runner, mode)()
    text = str(error.value)
    assert text.startswith('RuntimeError: stack expects') and text.count('labels 5 to 5') == 4
    assert all(f'{index}.jpg' in text for index in read[4:8])
