"""A few drawn images with annotations in COCO's layout, and label maps, for tests that break them."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from PIL import Image

CLASSES = ('square', 'disc', 'tri')
PALETTE = [(220, 40, 40), (40, 80, 220), (40, 190, 60)]
WIDTH, HEIGHT = 64, 48
IMAGES = dict(train=4, val=3)


def annotations(split: str) -> dict[str, Any]:
    """An intact annotation file: one object of each class in each image."""
    images = [dict(id=i + 1, file_name=f'{split}_{i}.png', width=WIDTH, height=HEIGHT) for i in range(IMAGES[split])]
    objects = []
    for image in images:
        for c in range(3):
            x, y, w, h = 3 + 20 * c, 5 + image['id'], 12 + 2 * c, 20 + c
            objects.append(
                dict(
                    id=len(objects) + 1,
                    image_id=image['id'],
                    category_id=c + 1,
                    bbox=[x, y, w, h],
                    area=w * h,
                    iscrowd=0,
                    segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]],
                )
            )
    categories = [dict(id=c + 1, name=name) for c, name in enumerate(CLASSES)]
    return dict(images=images, annotations=objects, categories=categories)


def write_coco(root: Path, change: Callable[[dict], Any] | None = None, splits: tuple[str, ...] = ('train', 'val')):
    """`root/{train,val}.json` and their images; `change` is applied to the files of `splits`."""
    for split in IMAGES:
        content = annotations(split)
        (root / split).mkdir(parents=True, exist_ok=True)
        for image in content['images']:
            pixels = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
            for record in content['annotations']:
                if record['image_id'] == image['id']:
                    x, y, w, h = record['bbox']
                    pixels[y : y + h, x : x + w] = PALETTE[record['category_id'] - 1]
            Image.fromarray(pixels).save(root / split / image['file_name'])
        if change is not None and split in splits:
            content = copy.deepcopy(content)
            content = change(content) or content
        (root / f'{split}.json').write_text(json.dumps(content))
    return root


def coco_config(root: Path, masks: bool = True, **options: Any) -> Config:
    """A Mask R-CNN without backbone on `write_coco`, or one of boxes alone; `options` by dotted keys."""

    def loader(split: str) -> dict:
        pipeline = [
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=masks),
            dict(type='PackDetInputs'),
        ]
        dataset = dict(
            type='CocoDataset',
            data_root=f'{root}/',
            ann_file=f'{split}.json',
            data_prefix=dict(img=f'{split}/'),
            metainfo=dict(classes=CLASSES, palette=PALETTE),
            pipeline=pipeline,
        )
        if split == 'train':
            dataset['filter_cfg'] = dict(filter_empty_gt=True, min_size=32)
        else:
            dataset['test_mode'] = True
        return dict(batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dataset)

    cfg = Config(
        dict(
            default_scope='mmdet',
            model=dict(
                type='MaskRCNN',
                roi_head=dict(
                    type='StandardRoIHead',
                    bbox_head=dict(type='Shared2FCBBoxHead', num_classes=3),
                    mask_head=dict(type='FCNMaskHead', num_classes=3) if masks else None,
                ),
            ),
            train_dataloader=loader('train'),
            val_dataloader=loader('val'),
            val_evaluator=dict(
                type='CocoMetric', ann_file=f'{root}/val.json', metric=['bbox', 'segm'] if masks else 'bbox'
            ),
        )
    )
    cfg.merge_from_dict(options)
    return cfg


def write_label_maps(root: Path, change: Callable[[np.ndarray], Any] | None = None) -> Path:
    """`root/{train,val}/*.jpg` with label maps `root/labels/{train,val}/*.png` of classes 0 to 3."""
    for split, count in IMAGES.items():
        for folder in (root / split, root / 'labels' / split):
            folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            labels = np.zeros((HEIGHT, WIDTH), np.uint8)
            for c in range(3):
                labels[5 + i : 25, 3 + 20 * c : 15 + 20 * c] = c + 1
            Image.fromarray(np.stack([labels * 60] * 3, -1)).save(root / split / f'{i}.jpg')
            changed = change(labels) if change else labels
            changed = changed if isinstance(changed, Image.Image) else Image.fromarray(changed)
            changed.save(root / 'labels' / split / f'{i}.png')
    return root


def segmentation_config(root: Path, classes: tuple[str, ...] = ('ground', *CLASSES), **options: Any) -> Config:
    """A decode head on `write_label_maps`; `options` by dotted keys."""

    def loader(split: str) -> dict:
        dataset = dict(
            type='BaseSegDataset',
            data_root=str(root),
            data_prefix=dict(img_path=split, seg_map_path=f'labels/{split}'),
            metainfo=dict(classes=classes, palette=[(0, 0, 0), *PALETTE][: len(classes)]),
            pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')],
        )
        return dict(batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dataset)

    cfg = Config(
        dict(
            default_scope='mmseg',
            model=dict(type='EncoderDecoder', decode_head=dict(type='FCNHead', num_classes=len(classes))),
            train_dataloader=loader('train'),
            val_dataloader=loader('val'),
            val_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
        )
    )
    cfg.merge_from_dict(options)
    return cfg
