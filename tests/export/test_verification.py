"""What the comparison of a file with its model sees."""

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from mmseg.structures import SegDataSample

from hybrid_backbones.export import verification
from hybrid_backbones.export.preprocessing import InputRule, Preprocessing

RULE = InputRule(None, True, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 'RGB', 1, 0.0)
IMAGES = np.zeros((1, 20, 30, 3), np.uint8)


class Detector(torch.nn.Module):
    """Finds the same objects everywhere."""

    def __init__(self, *found: tuple[float, int, list[float]]) -> None:
        super().__init__()
        self.scores, self.labels, self.boxes = (torch.tensor(values) for values in zip(*found, strict=True))

    def predict(self, inputs, samples):
        masks = torch.zeros(len(self.boxes), *samples[0].ori_shape, dtype=torch.bool)
        for mask, (left, top, right, bottom) in zip(masks, self.boxes.long().tolist(), strict=True):
            mask[top:bottom, left:right] = True
        found = InstanceData(scores=self.scores, labels=self.labels, bboxes=self.boxes, masks=masks)
        return [DetDataSample(pred_instances=found)]

    def file(self):
        """A file that says the same."""
        found = self.predict(None, [DetDataSample(metainfo=dict(ori_shape=IMAGES.shape[1:3]))])[0].pred_instances
        results = dict(scores=found.scores, labels=found.labels, boxes=found.bboxes, masks=found.masks)
        return lambda images: {name: value[None].numpy().copy() for name, value in results.items()}


FOUND = (0.9, 1, [2.0, 3.0, 12.0, 13.0]), (0.6, 0, [5.0, 5.0, 25.0, 15.0]), (0.04, 2, [0.0, 0.0, 9.0, 9.0])


def compare(model, file):
    return verification.compare(model, Preprocessing(RULE), file, IMAGES)


def test_equal_detections():
    model = Detector(*FOUND)
    found = compare(model, model.file())
    assert found == dict(detections=2, missing=0, box=0.0, score=0.0, mask_iou=1.0)
    assert not verification.failures(found, 'float32')


def changed(**changes):
    model = Detector(*FOUND)

    def file(images):
        results = model.file()(images)
        for name, change in changes.items():
            change(results[name][0])
        return results

    return compare(model, file)


@pytest.mark.parametrize(
    'name, change, said',
    [
        ('boxes', lambda boxes: boxes.__setitem__((1, 2), boxes[1, 2] + 0.02), 'box differ by 0.02'),
        ('scores', lambda scores: scores.__setitem__(0, 0.899), 'score differ by 0.001'),
        ('labels', lambda labels: labels.__setitem__(0, 2), '2 of 2 detections are in one of the two alone'),
        ('scores', lambda scores: scores.__setitem__(2, 0.06), '1 of 2 detections are in one of the two alone'),
        ('scores', lambda scores: scores.__setitem__(1, 0.01), '1 of 2 detections are in one of the two alone'),
        ('masks', lambda masks: masks[1].__setitem__((slice(5, 7), slice(5, 25)), False), 'masks overlap by 0.8'),
        ('boxes', lambda boxes: boxes.__setitem__((0, 0), np.nan), 'in one of the two alone'),
    ],
)
def test_differences_are_found(name, change, said):
    failures = verification.failures(changed(**{name: change}), 'float32')
    assert any(said in failure for failure in failures), failures


def test_a_pixel_at_the_threshold_is_left_open():
    found = changed(masks=lambda masks: masks[0].__setitem__((3, 2), False))
    assert found['mask_iou'] == 1.0
    found = changed(masks=lambda masks: masks[0].__setitem__((3, slice(2, 4)), False))
    assert found['mask_iou'] == pytest.approx(0.98)


def test_what_is_below_the_score_does_not_count():
    found = changed(boxes=lambda boxes: boxes.__setitem__(2, 0))
    assert not verification.failures(found, 'float32')


class Segmentor(torch.nn.Module):
    decode_head = None

    def predict(self, inputs, samples):
        from mmengine.structures import PixelData

        logits = torch.linspace(-3, 3, 4 * 20 * 30).view(20, 30, 4).permute(2, 0, 1)
        return [SegDataSample(seg_logits=PixelData(data=logits), pred_sem_seg=PixelData(data=logits.argmax(0)[None]))]


@pytest.mark.parametrize('error, wrong', [(1e-5, False), (1e-2, True), (np.nan, True)])
def test_logits(error, wrong):
    sample = Segmentor().predict(None, None)[0]

    def file(images):
        logits = sample.seg_logits.data[None].numpy().copy()
        logits[0, 0, 3, 4] += error
        return dict(labels=sample.pred_sem_seg.data.numpy(), logits=logits)

    found = compare(Segmentor(), file)
    assert (found['pixels'], found['other_class']) == (600, 0)
    assert bool(verification.failures(found, 'float32')) is wrong


def test_sizes_that_are_tried():
    shapes = [batch.shape for batch in verification.image_batches()]
    assert shapes == [
        (1, 159, 159, 3),
        (1, 160, 100, 3),
        (1, 100, 160, 3),
        (1, 129, 129, 3),
        (1, 159, 159, 3),
        (2, 160, 160, 3),
    ]
    small = [batch.shape for batch in verification.image_batches([np.zeros((10, 40, 3), np.uint8)])]
    assert all(min(shape[1:3]) >= 9 for shape in small)
