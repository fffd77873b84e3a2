"""Missing or partial data: one error with everything that a user needs to know. Intact real data pass."""

import shutil
from pathlib import Path

import pytest
from datasets.tiny_data import coco_config, segmentation_config, write_coco, write_label_maps

from hybrid_backbones.datasets.checks import DataError, check_data
from hybrid_backbones.engine.config import load_config

CONFIGS = Path(__file__).parents[2] / 'configs'


def message(cfg, *args) -> str:
    with pytest.raises(DataError) as error:
        check_data(cfg, *args)
    return str(error.value)


@pytest.fixture
def coco(tmp_path):
    return write_coco(tmp_path)


@pytest.fixture
def label_maps(tmp_path):
    return write_label_maps(tmp_path)


def test_nothing_there(tmp_path):
    root = tmp_path / 'coco'
    text = message(coco_config(root))
    for split in ('train', 'val'):
        assert f'no folder {root}/{split}' in text
        assert f'no file {root}/{split}.json' in text
    assert 'annotations/instances_train2017.json, instances_val2017.json' in text
    assert '--data-root DIR' in text
    assert 'hybrid-backbones train hybrid_backbones::maskrcnn_conv2former_n_shapes.py' in text
    text = message(segmentation_config(tmp_path / 'ade'))
    assert 'images/training/*.jpg' in text
    assert 'hybrid_backbones::upernet_conv2former_n_shapes.py' in text


def test_missing_annotation_file(coco):
    (coco / 'val.json').unlink()
    text = message(coco_config(coco))
    assert f'no file {coco}/val.json' in text and f'{coco}/train.json' not in text
    check_data(coco_config(coco), ('train',))


def test_name_in_another_case_is_suggested(coco):
    (coco / 'train').rename(coco / 'Train')
    assert f'Remedy: {coco}/Train is there' in message(coco_config(coco))


def test_missing_images_are_counted_and_named(coco):
    (coco / 'train' / 'train_2.png').unlink()
    text = message(coco_config(coco))
    assert '1 of the 4 images that' in text and 'train_2.png' in text
    shutil.rmtree(coco / 'val')
    assert f'no folder {coco}/val' in message(coco_config(coco))


def test_images_with_another_suffix_or_deeper_down_are_suggested(coco):
    (coco / 'train' / 'train_0.png').rename(coco / 'train' / 'train_0.jpg')
    assert 'train_0.jpg is there' in message(coco_config(coco), ('train',))
    (coco / 'val' / 'deep').mkdir()
    (coco / 'val' / 'val_0.png').rename(coco / 'val' / 'deep' / 'val_0.png')
    assert f'point data_prefix to {coco}/val/deep' in message(coco_config(coco), ('val',))


def test_large_sets_are_sampled(coco, monkeypatch):
    monkeypatch.setattr('hybrid_backbones.datasets.checks.view.SAMPLE', 2)
    for path in (coco / 'train').iterdir():
        path.unlink()
    assert '2 of the 2 looked for, of 4' in message(coco_config(coco), ('train',))


@pytest.mark.parametrize(
    'damage, said',
    [
        (lambda content: content[:-12], 'the PNG is cut short'),
        (lambda content: b'', 'the file is empty'),
        (lambda content: b'<html>not found</html>', 'it is no image that can be read'),
    ],
)
def test_damaged_images_are_named(coco, damage, said):
    path = coco / 'train' / 'train_1.png'
    path.write_bytes(damage(path.read_bytes()))
    text = message(coco_config(coco))
    assert f'images cannot be read: {said}' in text and str(path) in text


def test_labels_belong_to_images(label_maps):
    (label_maps / 'labels' / 'train' / '1.png').unlink()
    text = message(segmentation_config(label_maps))
    assert '1 of the 4 labels' in text and '1.png' in text
    for path in (label_maps / 'train').iterdir():
        path.unlink()
    assert 'no *.jpg in' in message(segmentation_config(label_maps))


SHARED = {
    'coco_mini': ('maskrcnn_conv2former_t_coco.py', None),
    'ade20k_mini': ('upernet_conv2former_t_ade20k.py', None),
    'pennfudan': ('maskrcnn_conv2former_t_coco.py', ('person',)),
}


@pytest.mark.parametrize('name', SHARED)
def test_real_data_pass(real_images, tmp_path, name):
    config, classes = SHARED[name]
    cfg = load_config(CONFIGS / config, str(tmp_path), str(real_images(name)))
    if classes:
        for split in ('train', 'val', 'test'):
            cfg[f'{split}_dataloader'].dataset.metainfo = dict(classes=classes, palette=[(220, 20, 60)])
        for head in ('bbox_head', 'mask_head'):
            cfg.model.roi_head[head].num_classes = len(classes)
    check_data(cfg)


def test_real_label_maps_of_an_own_dataset_pass(real_images):
    names = 'sky building pole road pavement tree sign_symbol fence car pedestrian bicyclist'.split()  # noqa: SIM905
    cfg = segmentation_config(real_images('camvid'), classes=tuple(names))
    for split in ('train', 'val'):
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset.metainfo.pop('palette')
        dataset.data_prefix = dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}')
    check_data(cfg)
