"""Missing or partial data: one error with everything that a user needs to know."""

import json
import shutil

import pytest
from mmengine.config import Config

from hybrid_backbones.datasets.checks import DataError, check_data


def coco_config(root) -> Config:
    def split(name):
        dataset = dict(
            data_root=str(root), ann_file=f'annotations/instances_{name}.json', data_prefix=dict(img=f'{name}/')
        )
        return dict(dataset=dict(type='RepeatDataset', dataset=dataset))

    evaluator = dict(type='CocoMetric', ann_file=f'{root}/annotations/instances_val2017.json')
    return Config(
        dict(
            default_scope='mmdet',
            train_dataloader=split('train2017'),
            val_dataloader=split('val2017'),
            val_evaluator=[evaluator],
        )
    )


def ade_config(root) -> Config:
    prefix = dict(img_path='images/training', seg_map_path='annotations/training')
    return Config(
        dict(default_scope='mmseg', train_dataloader=dict(dataset=dict(data_root=str(root), data_prefix=prefix)))
    )


@pytest.fixture
def coco(tmp_path):
    (tmp_path / 'annotations').mkdir()
    for name in ('train2017', 'val2017'):
        (tmp_path / name).mkdir()
        images = [dict(id=i, file_name=f'{i:03}.jpg') for i in range(300)]
        for image in images:
            (tmp_path / name / image['file_name']).touch()
        (tmp_path / 'annotations' / f'instances_{name}.json').write_text(json.dumps(dict(images=images)))
    return tmp_path


@pytest.fixture
def ade(tmp_path):
    for kind, suffix in (('images', 'jpg'), ('annotations', 'png')):
        (tmp_path / kind / 'training').mkdir(parents=True)
        for i in range(3):
            (tmp_path / kind / 'training' / f'ADE_{i}.{suffix}').touch()
    return tmp_path


def message(cfg, *args) -> str:
    with pytest.raises(DataError) as error:
        check_data(cfg, *args)
    return str(error.value)


def test_whole_data_pass(coco):
    check_data(coco_config(coco))


def test_whole_label_maps_pass(ade):
    check_data(ade_config(ade))


def test_nothing_there(tmp_path):
    text = message(coco_config(tmp_path / 'coco'))
    for name in ('train2017', 'val2017'):
        assert f'no folder {tmp_path}/coco/{name}' in text
        assert text.count(f'no file {tmp_path}/coco/annotations/instances_{name}.json') == 1
    assert 'annotations/instances_train2017.json, instances_val2017.json' in text
    assert '--data-root DIR' in text
    assert 'python tools/train.py configs/maskrcnn_conv2former_n_shapes.py' in text
    text = message(ade_config(tmp_path / 'ade'))
    assert 'images/training/*.jpg' in text
    assert 'configs/upernet_conv2former_n_shapes.py' in text


def test_missing_annotation_file(coco):
    (coco / 'annotations' / 'instances_val2017.json').unlink()
    text = message(coco_config(coco))
    assert 'instances_val2017.json' in text.split('is expected as')[0]
    assert 'no file' in text and 'instances_train2017.json\n' not in text.split('COCO 2017')[0]
    check_data(coco_config(coco), ('train',))


def test_missing_images_are_counted_and_named(coco):
    (coco / 'train2017' / '007.jpg').unlink()
    text = message(coco_config(coco))
    assert '1 of the 300 images that' in text
    assert '007.jpg' in text
    shutil.rmtree(coco / 'val2017')
    assert f'no folder {coco}/val2017' in message(coco_config(coco))


def test_large_sets_are_sampled(coco, monkeypatch):
    monkeypatch.setattr('hybrid_backbones.datasets.checks._SAMPLE', 100)
    for path in (coco / 'train2017').iterdir():
        path.unlink()
    assert '100 of the 100 looked for, of 300' in message(coco_config(coco), ('train',))


def test_damaged_annotation_file(coco):
    path = coco / 'annotations' / 'instances_train2017.json'
    path.write_text(path.read_text()[:-20])
    assert 'instances_train2017.json is not a complete COCO annotation file' in message(coco_config(coco))


def test_labels_belong_to_images(ade):
    (ade / 'annotations' / 'training' / 'ADE_1.png').unlink()
    text = message(ade_config(ade))
    assert '1 of the 3 labels' in text and 'ADE_1.png' in text
    for path in (ade / 'images' / 'training').iterdir():
        path.unlink()
    assert 'no *.jpg in' in message(ade_config(ade))


@pytest.mark.parametrize('name, config', [('coco_mini', coco_config), ('ade20k_mini', ade_config)])
def test_real_data_pass(real_images, name, config):
    check_data(config(real_images(name)))
