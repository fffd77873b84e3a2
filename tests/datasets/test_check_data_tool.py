"""`tools/check_data.py`: exit status, page, repaired files."""

import json

import numpy as np
import pytest
from datasets.tiny_data import HEIGHT, WIDTH, coco_config, segmentation_config, write_coco, write_label_maps

from hybrid_backbones.datasets.checks import DataView, check_data, examine
from hybrid_backbones.datasets.page import write_page
from hybrid_backbones.datasets.repair import repair


def break_much(content: dict) -> None:
    for i, record in enumerate(content['annotations']):
        record.update(area=0, id=i // 2, bbox=[str(value) for value in record['bbox']])
        record.pop('iscrowd')
    content['categories'].append(dict(id=9, name='tri'))
    content['annotations'][0]['segmentation'] = content['annotations'][0]['segmentation'][0]
    content['annotations'][1]['image_id'] = 999
    content['annotations'][2]['bbox'] = [900, 5, 20, 20]
    content['images'][0].update(width=48, height=64)


def test_repaired_annotations_pass_and_originals_stay(tmp_path):
    write_coco(tmp_path / 'data', break_much)
    original = (tmp_path / 'data' / 'train.json').read_bytes()
    cfg = coco_config(tmp_path / 'data')
    said = list(repair(DataView(cfg, ('train', 'val')), tmp_path / 'fixed'))
    settings = dict(line.strip().split('=') for line in said if line.startswith('  '))
    assert set(settings) == {'train_dataloader.dataset.ann_file', 'val_dataloader.dataset.ann_file',
                             'val_evaluator.ann_file'}  # fmt: skip
    assert '10 areas computed' in said[0] and '1 categories merged' in said[0]
    cfg.merge_from_dict({key: value.strip("'") for key, value in settings.items()})
    check_data(cfg)
    assert (tmp_path / 'data' / 'train.json').read_bytes() == original


@pytest.mark.parametrize('form', ['corners', 'centre', 'rows'])
def test_boxes_of_other_forms_are_converted(tmp_path, form):
    def change(content: dict) -> None:
        for record in content['annotations']:
            x, y, w, h = record['bbox']
            record['bbox'] = dict(corners=[x, y, x + w, y + h], centre=[x + w / 2, y + h / 2, w, h], rows=[y, x, h, w])[
                form
            ]

    intact = json.loads((write_coco(tmp_path / 'intact') / 'train.json').read_text())
    list(repair(DataView(coco_config(write_coco(tmp_path / 'data', change)), ('train',)), tmp_path / 'fixed'))
    fixed = json.loads((tmp_path / 'fixed' / 'data' / 'train.json').read_text())
    expected = [record['bbox'] for record in intact['annotations']]
    np.testing.assert_allclose([record['bbox'] for record in fixed['annotations']], expected)


def break_more(content: dict) -> None:
    objects = content['annotations']
    objects[0]['bbox'][2] = float('nan')
    objects[1]['area'] = float('inf')
    objects[2]['segmentation'] = [[str(value) for value in objects[2]['segmentation'][0]]]
    objects[3]['segmentation'] = np.reshape(objects[3]['segmentation'][0], (-1, 2)).tolist()
    objects[4]['segmentation'] = dict(size=[HEIGHT, WIDTH], counts=[9, 9])
    objects[6]['segmentation'] = [[5, 5, 25, 5, 15, 5]]
    objects.append(dict(objects[5], id=100))
    content['images'].append(dict(content['images'][0], id=50))
    objects.append(dict(objects[5], id=101, image_id=50))


def test_more_is_repaired(tmp_path):
    write_coco(tmp_path / 'data', break_more)
    said = list(repair(DataView(coco_config(tmp_path / 'data'), ('train',)), tmp_path / 'fixed'))
    assert said[0].partition(': ')[2].split(', ') == [
        *('1 images listed again removed', '1 annotations without a box removed', '1 areas computed'),
        *('2 polygons corrected', '2 masks replaced by boxes', '1 objects listed again removed'),
    ]
    path = str(tmp_path / 'fixed' / 'data' / 'train.json')
    report = check_data(coco_config(tmp_path / 'data', **{'train_dataloader.dataset.ann_file': path}), ('train',))
    assert report.findings == []


@pytest.mark.parametrize('config', [coco_config, segmentation_config])
def test_page_is_self_contained(tmp_path, config):
    write_coco(tmp_path) if config is coco_config else write_label_maps(tmp_path)
    data = DataView(config(tmp_path), ('train', 'val'))
    page = write_page(data, examine(data), 'Data of <my_config.py>')
    assert '&lt;my_config.py&gt;' in page and 'http://' not in page.replace('http-equiv', '')
    assert page.count('<img src="data:image/png') >= 2 * (1 + 3)  # a plot and three samples of each split


def test_tool(run_tool, tmp_path):
    write_coco(tmp_path / 'data', lambda content: [r.update(area=0) for r in content['annotations']] and None)
    coco_config(tmp_path / 'data').dump(tmp_path / 'config.py')
    arguments = [tmp_path / 'config.py', '--full', '--out', tmp_path / 'page.html']
    status, printed, _ = run_tool('check_data', *arguments)
    assert status == 1
    assert 'ERROR   [area-zero]' in printed and (tmp_path / 'page.html').is_file()
    arguments += ['--allow', 'area-zero', 'no-objects', '--fix', tmp_path / 'fixed']
    status, printed, _ = run_tool('check_data', *arguments)
    assert status == 0
    assert '(allowed by --allow area-zero)' in printed and '12 areas computed' in printed
