"""Truth beside predictions: what is read of the samples, and that the right pixels are coloured."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData, PixelData
from visualize.pictures import colour_share, pixels

from hybrid_backbones.visualize import Panel, draw_pairs
from hybrid_backbones.visualize.pairs import _panels


def test_pairs_show_masks_boxes_and_label_maps(tmp_path: Path) -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    mask = np.zeros((1, 40, 60), bool)
    mask[:, 10:30, 10:50] = True
    truth = Panel(image, boxes=np.array([[10, 10, 50, 30]]), labels=np.array([1]), masks=mask, crowds=mask[:0])
    nothing = Panel(image, boxes=np.zeros((0, 4)), labels=np.zeros(0, int), scores=np.zeros(0), masks=mask[:0])
    labels = np.full((40, 60), 255, np.uint8)
    labels[:, :30] = 0
    palette = [(200, 100, 0), (0, 100, 200)]
    picture = pixels(
        draw_pairs(
            [(truth, nothing), (Panel(image, classes_map=labels), Panel(image, classes_map=labels))],
            ('ground', 'house'),
            palette,
            tmp_path / 'pairs.png',
        )
    )
    first, second, third, fourth = np.array_split(picture, 4, axis=1)
    boxed = tuple(palette[1])
    assert colour_share(first, boxed) > 0.001 and colour_share(third, boxed) < colour_share(first, boxed)
    assert colour_share(second, (0, 0, 0)) > 0.5, 'no prediction: the image as it is'
    assert colour_share(third, (130, 65, 0)) == pytest.approx(colour_share(fourth, (130, 65, 0)), abs=0.02)
    assert colour_share(third, (130, 65, 0)) > 0.2


@pytest.fixture
def photo(tmp_path: Path) -> str:
    import mmcv

    path = tmp_path / 'photo.png'
    mmcv.imwrite(np.full((8, 8, 3), 7, np.uint8), str(path))
    return str(path)


def test_detections_below_the_threshold_are_left_out(photo: str) -> None:
    from mmdet.structures import DetDataSample
    from mmdet.structures.bbox import HorizontalBoxes
    from mmdet.structures.mask import BitmapMasks

    masks = np.zeros((2, 8, 8), np.uint8)
    masks[:, :4] = 1
    boxes = torch.tensor([[0.0, 0, 8, 4], [0, 0, 4, 4]])
    sample = DetDataSample(metainfo=dict(img_path=photo))
    sample.gt_instances = InstanceData(
        bboxes=HorizontalBoxes(boxes), labels=torch.tensor([0, 1]), masks=BitmapMasks(masks, 8, 8)
    )
    sample.ignored_instances = InstanceData(
        bboxes=HorizontalBoxes(boxes[:1]), labels=torch.tensor([0]), masks=BitmapMasks(masks[:1], 8, 8)
    )
    sample.pred_instances = InstanceData(
        bboxes=boxes, labels=torch.tensor([1, 0]), scores=torch.tensor([0.9, 0.3]), masks=torch.tensor(masks > 0)
    )
    truth, prediction = _panels(sample, score_thr=0.5)
    assert truth.boxes.shape == (2, 4) and truth.masks.sum() == 64 and truth.crowds.shape == (1, 8, 8)
    assert truth.scores is None
    assert (prediction.labels.tolist(), len(prediction.masks)) == ([1], 1)
    assert prediction.scores == pytest.approx([0.9])


def test_segmentation_samples_become_label_maps(photo: str) -> None:
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo=dict(img_path=photo))
    sample.gt_sem_seg = PixelData(data=torch.full((1, 8, 8), 255))
    sample.pred_sem_seg = PixelData(data=torch.full((1, 8, 8), 3))
    truth, prediction = _panels(sample, score_thr=0.5)
    assert truth.classes_map.tolist() == [[255] * 8] * 8
    assert prediction.classes_map.tolist() == [[3] * 8] * 8
