"""Labels follow `metainfo.classes` whatever order files list their categories in, in training and evaluation."""

import itertools

import numpy as np
import pytest
import torch
from datasets.tiny_data import CLASSES, coco_config, write_coco
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, DefaultScope
from mmengine.structures import InstanceData
from pycocotools import mask as mask_utils

from hybrid_backbones.datasets.checks import check_data
from hybrid_backbones.datasets.checks.class_order import adopt_order


def reorder(content: dict) -> None:
    content['categories'] = [content['categories'][k] for k in (2, 0, 1)]


def perfect_predictions(record: dict, order: tuple[str, ...]) -> dict:
    """What a perfect detector says whose outputs have the order `order`: it recognises shapes, not category ids."""
    objects = sorted(record['instances'], key=lambda instance: instance['bbox'][0])  # square, disc, tri from the left
    boxes = torch.tensor([instance['bbox'] for instance in objects], dtype=torch.float32)
    size = record['height'], record['width']
    masks = [mask_utils.merge(mask_utils.frPyObjects(instance['mask'], *size)) for instance in objects]
    predicted = InstanceData(
        bboxes=boxes, labels=torch.tensor([order.index(name) for name in CLASSES]), scores=torch.ones(3), masks=masks
    )
    return dict(img_id=record['img_id'], ori_shape=size, pred_instances=predicted)


def evaluate(cfg: Config, order: tuple[str, ...]) -> dict[str, float]:
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(dict(cfg.val_dataloader.dataset, pipeline=[]))
        metric = METRICS.build(cfg.val_evaluator)
    metric.dataset_meta = dataset.metainfo
    for i in range(len(dataset)):
        metric.process({}, [perfect_predictions(dataset.get_data_info(i), order)])
    return metric.evaluate(len(dataset))


@pytest.mark.parametrize(
    'splits', [(), ('val',), ('train', 'val')], ids=['as classes', 'val_cat_order', 'both_cat_order']
)
def test_ap_does_not_depend_on_the_order_of_categories(tmp_path, splits):
    write_coco(tmp_path, reorder, splits)
    cfg = coco_config(tmp_path)
    report = check_data(cfg)
    assert [f.code for f in report.findings] == ['category-order'] * len(splits)
    metrics = evaluate(cfg, CLASSES)
    assert metrics['coco/bbox_mAP'] == metrics['coco/segm_mAP'] == 1.0


def labels_by_position(dataset: dict) -> np.ndarray:
    """(images, 3) labels of the square, the disc and the triangle of each image."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        built = DATASETS.build(dataset)
    infos = (built.get_data_info(i) for i in range(len(built)))
    return np.array(
        [[o['bbox_label'] for o in sorted(info['instances'], key=lambda o: o['bbox'][0])] for info in infos]
    )


def test_concatenated_files_of_different_order_give_equal_labels(tmp_path):
    """The same objects had two labels in one training set."""
    cfg = coco_config(write_coco(tmp_path / 'one'))
    other = coco_config(write_coco(tmp_path / 'two', reorder))
    both = dict(type='ConcatDataset', datasets=[cfg.train_dataloader.dataset, other.train_dataloader.dataset])
    cfg.train_dataloader.dataset = both
    check_data(cfg)
    assert (labels_by_position(both) == [0, 1, 2]).all()
    assert labels_by_position(both).shape == (8, 3)


@pytest.mark.parametrize('order', list(itertools.permutations(CLASSES)))
def test_labels_follow_the_config(tmp_path, order):
    write_coco(tmp_path)
    cfg = coco_config(tmp_path)
    dataset = dict(cfg.train_dataloader.dataset, metainfo=dict(classes=order))
    assert (labels_by_position(dataset) == [order.index(name) for name in CLASSES]).all()


def checkpoint(path, classes: tuple[str, ...]) -> str:
    torch.save(dict(state_dict={}, meta=dict(dataset_meta=dict(classes=classes))), path)
    return str(path)


def test_a_checkpoint_brings_its_order(tmp_path):
    """A detector trained with other names' order is loaded into a config that lists them anew (`order.py`)."""
    write_coco(tmp_path)
    cfg = coco_config(tmp_path)
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset.metainfo = dict(classes=('tri', 'square', 'disc'), palette=[[3], [1], [2]])
    cfg.load_from = checkpoint(tmp_path / 'good.pth', CLASSES)
    report = check_data(cfg)
    assert {f.code for f in report.findings} == {'checkpoint-order'}
    assert cfg.val_dataloader.dataset.metainfo == dict(classes=CLASSES, palette=[[1], [2], [3]])
    assert evaluate(cfg, CLASSES)['coco/bbox_mAP'] == 1.0


@pytest.mark.parametrize('classes', [CLASSES, ('person', 'dog', 'cat'), (*CLASSES, 'star'), ()])
def test_other_checkpoints_change_nothing(tmp_path, classes):
    cfg = coco_config(write_coco(tmp_path))
    cfg.load_from = checkpoint(tmp_path / 'other.pth', classes)
    before = cfg.to_dict()
    assert adopt_order(cfg) == []
    assert cfg.to_dict() == before
