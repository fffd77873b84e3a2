"""Pictures of runs: what they read, and that the right pixels are coloured."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData, PixelData

from hybrid_backbones.visualize import (
    Panel,
    _panels,
    draw_curves,
    draw_pairs,
    final_metrics,
    find_run,
    read_scalars,
)

PACE = dict(data_time=0.0, time=1.0)
RECORDS = [
    dict(lr=0.1, base_lr=0.1, grad_norm=3.0, loss=2.0, loss_mask=0.5, acc=50.0, iter=1, step=1, **PACE),
    dict(lr=0.1, base_lr=0.1, grad_norm=3.0, loss=1.0, loss_mask=0.2, acc=60.0, iter=2, step=2, **PACE),
    {'coco/bbox_mAP': 0.25, 'coco/bbox_mAP_50': 0.5, 'coco/bbox_mAP_l': 0.1, 'step': 2, **PACE},
    {'coco/bbox_mAP': 0.35, 'coco/bbox_mAP_50': 0.6, 'coco/bbox_mAP_l': 0.2, 'step': 4, **PACE},
]


@pytest.fixture
def scalars(tmp_path: Path) -> Path:
    path = tmp_path / 'run' / '20260101_000000' / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(json.dumps(record) for record in RECORDS))
    return path


def pixels(path: Path) -> np.ndarray:
    import mmcv

    return mmcv.imread(str(path), channel_order='rgb')


def colour_share(picture: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((np.abs(picture.astype(int) - colour).max(-1) <= 3).mean())


def test_scalars_are_sorted_into_losses_and_metrics(scalars: Path) -> None:
    losses, metrics = read_scalars(scalars)
    assert {name: curve.tolist() for name, curve in losses.items()} == {
        'loss': [[1, 2.0], [2, 1.0]],
        'loss_mask': [[1, 0.5], [2, 0.2]],
    }
    assert set(metrics) == {'coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/bbox_mAP_l'}
    assert final_metrics(scalars) == {'coco/bbox_mAP': 0.35, 'coco/bbox_mAP_50': 0.6, 'coco/bbox_mAP_l': 0.2}


def test_curves_are_drawn(scalars: Path, tmp_path: Path) -> None:
    picture = pixels(draw_curves(scalars, tmp_path / 'new' / 'curves.png'))
    half = picture.shape[1] // 2
    for side in (picture[:, :half], picture[:, half:]):
        assert colour_share(side, (31, 119, 180)) > 1e-4, 'first line of either side, in Matplotlib blue'


def test_run_without_validation_is_drawn(scalars: Path, tmp_path: Path) -> None:
    scalars.write_text('\n'.join(json.dumps(record) for record in RECORDS[:2]))
    assert draw_curves(scalars, tmp_path / 'curves.png').is_file()
    assert final_metrics(scalars) == {}


def test_newest_run_is_found(scalars: Path) -> None:
    work_dir = scalars.parents[2]
    with pytest.raises(FileNotFoundError, match='no finished run'):
        find_run(work_dir)
    torch.save({}, work_dir / 'iter_2.pth')
    run = find_run(work_dir)
    assert (run.scalars, run.config) == (scalars, scalars.with_name('config.py'))
    assert run.checkpoint.name == 'iter_2.pth'
    with pytest.raises(FileNotFoundError, match='nowhere'):
        find_run(work_dir / 'nowhere')


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
