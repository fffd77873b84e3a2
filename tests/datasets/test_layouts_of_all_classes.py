"""Every dataset class that mmdet and mmseg register passes with a miniature, or is said not to be checked."""

import csv
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import mmdet.datasets
import mmseg.datasets
import numpy as np
import pytest
from datasets import test_layouts
from datasets.test_layouts import coco_content, det_config, write_image, write_segmentation_miniature
from datasets.tiny_data import HEIGHT, WIDTH
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from hybrid_backbones.datasets.checks import DataError, DataView, check_data
from hybrid_backbones.datasets.checks.layouts import UNCHECKED


def registered(scope: str) -> dict[str, type]:
    with DATASETS.switch_scope_and_registry(scope) as registry:
        return {name: cls for name, cls in registry.module_dict.items() if issubclass(cls, BaseDataset)}


def is_a(cls: type, *names: str) -> bool:
    return any(base.__name__ in names for base in cls.__mro__)


LABEL_MAPS = [
    (scope, name)
    for scope in ('mmdet', 'mmseg')
    for name, cls in registered(scope).items()
    if is_a(cls, 'BaseSegDataset', 'BaseCDDataset') and name not in (*UNCHECKED, 'NYUDataset')
]


@pytest.mark.parametrize('scope, name', LABEL_MAPS, ids=[f'{scope}-{name}' for scope, name in LABEL_MAPS])
def test_label_maps(tmp_path, scope, name):
    cls = registered(scope)[name]
    prefix = dict(img_path='images', seg_map_path='labels')
    if is_a(cls, 'BaseCDDataset'):
        prefix['img_path2'] = 'second'
    dataset = dict(type=name, data_root=f'{tmp_path}/', data_prefix=prefix, pipeline=[dict(type='LoadImageFromFile')])
    if name.startswith(('Pascal', 'COCOStuff')):
        dataset['ann_file'] = 'names.txt'
    if not cls.METAINFO.get('classes'):
        dataset['metainfo'] = dict(classes=('one', 'two'), palette=[(0, 0, 0), (255, 255, 255)])
    for folder in prefix.values():
        (tmp_path / folder).mkdir()
    (tmp_path / 'names.txt').touch()
    cfg = Config(dict(default_scope=scope, train_dataloader=dict(dataset=dataset)))
    (view,) = DataView(cfg).datasets
    write_segmentation_miniature(view, names=('a', 'b'))
    check_data(cfg)
    next((tmp_path / 'labels').iterdir()).unlink()
    with pytest.raises(DataError, match='label-missing'):
        check_data(cfg)


def images(folder: Path, suffix: str = '.jpg') -> None:
    for i in range(2):
        write_image(folder / f'{i}{suffix}', np.full((HEIGHT, WIDTH, 3), 90, np.uint8))


def v3det(root: Path) -> Config:
    (root / 'names.txt').write_text('cat\ndog\n')
    (root / 'train.json').write_text(json.dumps(coco_content(['cat', 'dog'])))
    images(root / 'images')
    options = dict(ann_file='train.json', label_file='names.txt', data_prefix=dict(img='images/'))
    return det_config(root, 'V3DetDataset', **options)


def video(kind: str, **options) -> Callable[[Path], Config]:
    def build(root: Path) -> Config:
        (dataset,) = DataView(det_config(root, kind, **options)).datasets
        content = coco_content((dataset.classes or ('one', 'two'))[:2])
        for i, image in enumerate(content['images']):
            image.update(video_id=1, frame_id=i)
        for i, record in enumerate(content['annotations']):
            record.update(instance_id=i + 1, mot_conf=1.0, visibility=1.0, video_id=1)
        content['videos'] = [dict(id=1, name='v')]
        (root / 'train.json').write_text(json.dumps(content))
        images(root / 'images')
        return det_config(root, kind, ann_file='train.json', data_prefix=dict(img_path='images'), **options)

    return build


def captions(root: Path) -> Config:
    (root / 'train.json').write_text(json.dumps([dict(image=f'{i}.jpg', caption=['a cat']) for i in range(2)]))
    images(root / 'images')
    return det_config(root, 'CocoCaptionDataset', ann_file='train.json', data_prefix=dict(img_path='images'))


def odvg(root: Path) -> Config:
    found = dict(instances=[dict(bbox=[5, 5, 25, 25], label=0, category='cat')])
    lines = [dict(filename=f'{i}.jpg', width=WIDTH, height=HEIGHT, detection=found) for i in range(2)]
    (root / 'train.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    (root / 'names.json').write_text(json.dumps({'0': 'cat'}))
    images(root / 'images')
    options = dict(
        ann_file='train.jsonl', label_map_file='names.json', return_classes=True, data_prefix=dict(img='images/')
    )
    return det_config(root, 'ODVGDataset', **options)


def identities(root: Path) -> Config:
    (root / 'train.txt').write_text('0.jpg 0\n1.jpg 1\n')
    images(root / 'images')
    return det_config(root, 'ReIDDataset', ann_file='train.txt', data_prefix=dict(img_path='images'))


def open_images(kind: str) -> Callable[[Path], Config]:
    def build(root: Path) -> Config:
        images(root / 'images')
        metas = [dict(filename=f'{i}.jpg', ori_shape=(HEIGHT, WIDTH, 3)) for i in range(2)]
        (root / 'metas.pkl').write_bytes(pickle.dumps(metas))
        if kind == 'OpenImagesDataset':
            with (root / 'boxes.csv').open('w', newline='') as file:
                rows = [[i, 'x', '/m/1', 1, 0.1, 0.4, 0.1, 0.4, 0, 0, 0, 0, 0] for i in range(2)]
                csv.writer(file).writerows([['ImageID'], *rows])
            (root / 'names.csv').write_text('/m/1,Cat\n')
            (root / 'tree.json').write_text(json.dumps(dict(LabelName='/m/0', Subcategory=[dict(LabelName='/m/1')])))
            files = dict(ann_file='boxes.csv', label_file='names.csv', hierarchy_file='tree.json')
        else:
            lines = ''.join(f'{i}.jpg\n{WIDTH} {HEIGHT}\n1\n1 0.1 0.1 0.4 0.4 0\n' for i in range(2))
            (root / 'boxes.txt').write_text(lines)
            (root / 'names.csv').write_text('Cat,/m/1,1\n')
            np.save(root / 'tree.npy', np.eye(2))
            files = dict(ann_file='boxes.txt', label_file='names.csv', hierarchy_file='tree.npy')
        return det_config(root, kind, meta_file='metas.pkl', data_prefix=dict(img='images/'), **files)

    return build


MINIATURES = {
    'V3DetDataset': v3det,
    'BaseVideoDataset': video('BaseVideoDataset', metainfo=dict(classes=('one', 'two'))),
    'MOTChallengeDataset': video('MOTChallengeDataset'),
    'YouTubeVISDataset': video('YouTubeVISDataset', dataset_version='2019'),
    'CocoCaptionDataset': captions,
    'ODVGDataset': odvg,
    'ReIDDataset': identities,
    'OpenImagesDataset': open_images('OpenImagesDataset'),
    'OpenImagesChallengeDataset': open_images('OpenImagesChallengeDataset'),
}


@pytest.mark.parametrize('name', MINIATURES)
def test_texts_videos_and_other_layouts(tmp_path, name):
    cfg = MINIATURES[name](tmp_path)
    check_data(cfg)
    next((tmp_path / 'images').iterdir()).unlink()
    with pytest.raises(DataError, match='image-missing'):
        check_data(cfg)


@pytest.mark.parametrize('name', UNCHECKED)
def test_what_is_not_checked_is_said(tmp_path, name):
    scope = 'mmseg' if name in registered('mmseg') else 'mmdet'
    cfg = det_config(tmp_path, name)
    cfg.default_scope = scope
    report = check_data(cfg, allow=('layout', 'layout-unsupported'))
    assert f'of {name} are looked for; its annotations are not checked' in report.text()


# With miniatures in test_layouts.py, and bases that read no layout of their own.
ELSEWHERE = {
    *test_layouts.COCO_CLASSES,
    *('LVISDataset', 'VOCDataset', 'XMLDataset', 'WIDERFaceDataset', 'CrowdHumanDataset', 'CocoPanopticDataset'),
    *('ADE20KPanopticDataset', 'BaseDetDataset', 'NYUDataset'),
}


@pytest.mark.parametrize('package', [mmdet, mmseg])
def test_no_class_is_left_out(package):
    known = {name for _, name in LABEL_MAPS} | {*MINIATURES, *UNCHECKED, *ELSEWHERE}
    own = {n for n, cls in registered(package.__name__).items() if cls.__module__.startswith(f'{package.__name__}.')}
    assert own - known == set()
