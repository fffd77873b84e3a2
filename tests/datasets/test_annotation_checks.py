"""Annotation files of COCO's layout: each kind of mistake is found by its code, intact files pass."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from datasets.tiny_data import HEIGHT, WIDTH, coco_config, write_coco
from PIL import Image

from hybrid_backbones.datasets.checks import DataError, check_data
from hybrid_backbones.datasets.checks.coco_file import CocoFile
from hybrid_backbones.datasets.masks import encode_runs


def of_objects(change: Callable[[int, dict], object], every: int = 1) -> Callable[[dict], None]:
    def apply(content: dict) -> None:
        for i, record in enumerate(content['annotations']):
            if i % every == 0:
                change(i, record)

    return apply


def set_key(**values: object) -> Callable[[int, dict], None]:
    return lambda i, record: record.update(values)


def corners(i: int, record: dict) -> None:
    x, y, w, h = record['bbox']
    record['bbox'] = [x, y, x + w, y + h]


def centre(i: int, record: dict) -> None:
    x, y, w, h = record['bbox']
    record['bbox'] = [x + w / 2, y + h / 2, w, h]


def rows_first(i: int, record: dict) -> None:
    x, y, w, h = record['bbox']
    record['bbox'] = [y, x, h, w]


def double_objects(content: dict) -> None:
    n = len(content['annotations'])
    content['annotations'] += [dict(record, id=record['id'] + n) for record in content['annotations']]


def part_images(content: dict) -> None:
    """Each image twice, under ids of its own, with a part of the objects each."""
    n = len(content['images'])
    content['images'] += [dict(image, id=image['id'] + n) for image in content['images']]
    for record in content['annotations'][::2]:
        record['image_id'] += n


def repeat_images(content: dict) -> None:
    n, m = len(content['images']), len(content['annotations'])
    content['images'] += [dict(image, id=image['id'] + n) for image in content['images']]
    content['annotations'] += [
        dict(record, id=record['id'] + m, image_id=record['image_id'] + n) for record in content['annotations']
    ]


def swap_sizes(content: dict) -> None:
    for image in content['images']:
        image['width'], image['height'] = image['height'], image['width']


def rle(size: list[int]) -> Callable[[int, dict], None]:
    return lambda i, record: record.update(segmentation=dict(size=size, counts=[size[0] * size[1] - 30, 30]))


def runs_of_the_box(i: int, record: dict) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    x, y, w, h = record['bbox']
    mask[y : y + h, x : x + w] = True
    record['segmentation'] = encode_runs(mask)


def runs_by_rows(i: int, record: dict) -> None:
    """Run lengths in the order of rows, as numpy flattens a mask."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    x, y, w, h = record['bbox']
    mask[y : y + h, x : x + w] = True
    record['segmentation'] = dict(encode_runs(mask.T), size=[HEIGHT, WIDTH])


def rename(old: str, new: str) -> Callable[[dict], None]:
    def apply(content: dict) -> None:
        for category in content['categories']:
            category['name'] = new if category['name'] == old else category['name']

    return apply


def text_categories(content: dict) -> None:
    for category in content['categories']:
        category['id'] = str(category['id'])


def upper(content: dict) -> None:
    for category in content['categories']:
        category['name'] = category['name'].upper()


ERRORS = {
    'area of zero': (of_objects(set_key(area=0)), 'area-zero'),
    'area of zero in a third': (of_objects(set_key(area=0), 3), 'area-zero'),
    'no area': (of_objects(lambda i, r: r.pop('area'), 3), 'area-missing'),
    'no iscrowd': (of_objects(lambda i, r: r.pop('iscrowd')), 'iscrowd-missing'),
    'crowds only': (of_objects(set_key(iscrowd=1)), 'crowd'),
    'ids from zero': (of_objects(lambda i, r: r.update(id=i)), 'annotation-id-zero'),
    'double ids': (of_objects(lambda i, r: r.update(id=i // 2 + 1)), 'annotation-id'),
    'no id': (of_objects(lambda i, r: r.pop('id'), 5), 'annotation-id'),
    'boxes of text': (of_objects(lambda i, r: r.update(bbox=[str(v) for v in r['bbox']])), 'box'),
    'boxes of three numbers': (of_objects(lambda i, r: r['bbox'].pop(), 5), 'box'),
    'no box': (of_objects(lambda i, r: r.pop('bbox'), 5), 'box'),
    'boxes as corners': (of_objects(corners), 'box-form'),
    'boxes as corners without masks': (of_objects(lambda i, r: [corners(i, r), r.pop('segmentation')]), 'box-form'),
    'empty boxes': (of_objects(lambda i, r: r['bbox'].__setitem__(2, 0), 2), 'box-empty'),
    'boxes outside': (of_objects(lambda i, r: r['bbox'].__setitem__(0, 900), 2), 'box-outside'),
    'boxes as shares of the image': (of_objects(lambda i, r: r.update(bbox=[0.2, 0.2, 0.3, 0.4])), 'box-thin'),
    'empty segmentation': (of_objects(set_key(segmentation=[]), 4), 'segmentation'),
    'null segmentation': (of_objects(set_key(segmentation=None)), 'segmentation'),
    'no segmentation': (of_objects(lambda i, r: r.pop('segmentation'), 5), 'segmentation'),
    'flat polygons': (of_objects(lambda i, r: r.update(segmentation=r['segmentation'][0])), 'segmentation'),
    'polygons of text': (of_objects(set_key(segmentation=[['a'] * 6]), 5), 'segmentation'),
    'polygons of four numbers': (of_objects(set_key(segmentation=[[3, 5, 15, 25]]), 4), 'polygon-short'),
    'polygons elsewhere': (of_objects(set_key(segmentation=[[900, 0, 950, 0, 950, 90]])), 'mask-outside-box'),
    'run lengths by rows': (of_objects(runs_by_rows), 'mask-outside-box'),
    'run lengths that do not fill the image': (
        of_objects(set_key(segmentation=dict(size=[48, 64], counts=[9, 9]))), 'segmentation'),
    'run lengths of another encoding': (
        of_objects(set_key(segmentation=dict(size=[48, 64], counts='zzzz'))), 'segmentation'),
    'run lengths of nothing': (of_objects(set_key(segmentation=dict(size=[48, 64], counts=[48 * 64]))), 'mask-blank'),
    'polygons on a line': (of_objects(set_key(segmentation=[[3, 5, 9.333, 7.111, 15.667, 9.222]]), 5), 'mask-blank'),
    'polygons of numbers as text': (
        of_objects(lambda i, r: r.update(segmentation=[[str(v) for v in r['segmentation'][0]]])), 'segmentation'),
    'a coordinate that is no number': (
        of_objects(lambda i, r: r['segmentation'][0].__setitem__(2, float('nan'))), 'segmentation'),
    'points as pairs': (
        of_objects(lambda i, r: r.update(segmentation=np.reshape(r['segmentation'][0], (-1, 2)).tolist())),
        'polygon-short'),
    'infinite area': (of_objects(set_key(area=float('inf'))), 'area-missing'),
    'boxes by their centre without masks': (
        of_objects(lambda i, r: [centre(i, r), r.pop('segmentation')]), 'box-form'),
    'boxes by rows first without masks': (
        of_objects(lambda i, r: [rows_first(i, r), r.pop('segmentation')]), 'box-form'),
    'all objects listed again': (double_objects, 'object-double'),
    'an image file under several ids': (part_images, 'image-parted'),
    'images without file names': (lambda c: [i.pop('file_name') for i in c['images']] and None, 'image-record'),
    'run lengths of another size': (of_objects(rle([64, 48]), 5), 'rle-size'),
    'width and height exchanged': (swap_sizes, 'image-swapped'),
    'images scaled': (lambda c: [i.update(width=128, height=96) for i in c['images']] and None, 'image-scaled'),
    'no width': (lambda c: c['images'][0].pop('width') and None, 'image-record'),
    'file name of nothing': (lambda c: c['images'][0].update(file_name='no.png'), 'image-missing'),
    'image ids as text': (lambda c: [i.update(id=str(i['id'])) for i in c['images']] and None, 'unknown-image'),
    'category ids as text': (text_categories, 'unknown-category'),
    'two files of one id': (lambda c: c['images'].append(dict(c['images'][0], file_name='b.png')), 'double-image'),
    'no annotations': (lambda c: c.update(annotations=[]), 'no-objects'),
    'no key annotations': (lambda c: c.pop('annotations') and None, 'annotation-file'),
    'annotations as a dict': (lambda c: c.update(annotations={}), 'annotation-file'),
    'no images': (lambda c: c.update(images=[]), 'no-images'),
    'names in capitals': (upper, 'category-missing'),
    'names with blanks': (rename('tri', 'tri '), 'category-missing'),
    'one name of another kind': (rename('tri', 'triangle'), 'category-missing'),
    'a name twice': (lambda c: c['categories'].append(dict(id=4, name='tri')), 'category-double'),
    'an id twice': (lambda c: c['categories'].append(dict(id=3, name='other')), 'category-record'),
}  # fmt: skip

INTACT = {
    'as it is': None,
    'one stray image id': lambda c: c['annotations'][0].update(image_id=999),
    'an image under two ids with the same objects': repeat_images,
    'an image listed again': lambda c: c['images'].append(dict(c['images'][0])),
    'ids as text throughout': lambda c: (
        (
            [i.update(id=str(i['id'])) for i in c['images']]
            + [r.update(image_id=str(r['image_id'])) for r in c['annotations']]
        )
        and None
    ),
    'ids from zero with gaps': lambda c: (
        (
            [k.update(id=(k['id'] - 1) * 7) for k in c['categories']]
            + [r.update(category_id=(r['category_id'] - 1) * 7) for r in c['annotations']]
        )
        and None
    ),
    'a superclass': lambda c: c['categories'].insert(0, dict(id=0, name='shapes', supercategory='none')),
    'categories in another order': lambda c: c['categories'].reverse(),
    'run lengths': of_objects(runs_of_the_box),
    'image without objects': lambda c: c.update(annotations=[r for r in c['annotations'] if r['image_id'] != 1]),
}


@pytest.mark.parametrize('change, code', ERRORS.values(), ids=ERRORS)
def test_mistakes_are_errors_that_name_file_record_and_remedy(tmp_path, change, code):
    write_coco(tmp_path, change)
    with pytest.raises(DataError) as error:
        check_data(coco_config(tmp_path))
    text = str(error.value)
    assert f'ERROR   [{code}]' in text
    assert str(tmp_path) in text and 'Remedy: ' in text and '--allow' in text


@pytest.mark.parametrize('change', INTACT.values(), ids=INTACT)
def test_intact_files_pass(tmp_path, change):
    write_coco(tmp_path, change)
    check_data(coco_config(tmp_path))


def test_what_follows_the_json_is_an_error(tmp_path):
    write_coco(tmp_path)
    path = tmp_path / 'val.json'
    path.write_text(path.read_text() + '}')
    with pytest.raises(DataError, match=r'val\.json: it is not a complete COCO annotation file .*Extra data'):
        check_data(coco_config(tmp_path))


def test_byte_order_mark_is_read_by_checks_and_by_mmdet(tmp_path):
    from mmengine.fileio import list_from_file
    from mmengine.registry import DATASETS, DefaultScope

    write_coco(tmp_path)
    for split in ('train', 'val'):
        path = tmp_path / f'{split}.json'
        path.write_text('\ufeff' + path.read_text(), encoding='utf-8')
    cfg = coco_config(tmp_path)
    check_data(cfg)
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert len(DATASETS.build(dict(cfg.train_dataloader.dataset, pipeline=[]))) == 4
    (tmp_path / 'list.txt').write_text('\ufefffirst\nsecond\n', encoding='utf-8')
    assert list_from_file(tmp_path / 'list.txt') == ['first', 'second']


def test_masks_are_not_asked_for_where_boxes_alone_are_used(tmp_path):
    write_coco(tmp_path, of_objects(lambda i, r: r.pop('segmentation')))
    check_data(coco_config(tmp_path, masks=False))


def test_missing_iscrowd_is_a_note_in_training_files(tmp_path):
    write_coco(tmp_path, of_objects(lambda i, r: r.pop('iscrowd')), splits=('train',))
    report = check_data(coco_config(tmp_path))
    assert [(f.severity, f.code) for f in report.findings] == [('note', 'iscrowd-missing')]


def test_all_findings_are_listed_at_once_errors_first(tmp_path):
    write_coco(tmp_path, lambda c: [r.update(area=0, id=0) for r in c['annotations']] and c['categories'].reverse())
    with pytest.raises(DataError) as error:
        check_data(coco_config(tmp_path))
    text = str(error.value)
    assert all(f'[{code}]' in text for code in ('area-zero', 'annotation-id', 'no-objects', 'category-order'))
    assert text.rindex('ERROR ') < text.index('NOTE ')
    assert '12 of 12 (100.0%), for example annotation 0 of image 1, key area' in text


def test_allowed_errors_pass_and_stay_in_the_report(tmp_path):
    write_coco(tmp_path, of_objects(lambda i, r: r.update(id=i)))
    report = check_data(coco_config(tmp_path), allow=['annotation-id-zero'])
    assert '(allowed by --allow annotation-id-zero)' in report.text()


def test_narrow_polygons_and_objects_with_another_polygon_are_no_lines(tmp_path):
    def narrow(i: int, record: dict) -> None:
        x, y, w, h = record['bbox']
        line = [x, y, x + w, y, x + w / 2, y]
        record['segmentation'] = [line, *record['segmentation']] if i % 2 else [[x, y, x + w, y + h, x, y + 0.5]]

    write_coco(tmp_path, of_objects(narrow))
    assert [f.code for f in check_data(coco_config(tmp_path)).findings if 'mask' in f.code] == []


def test_files_of_several_pages_are_named(tmp_path):
    write_coco(tmp_path, lambda c: c['images'][1].update(file_name='pages.tif'), splits=('train',))
    page = Image.open(tmp_path / 'train' / 'train_1.png')
    page.save(tmp_path / 'train' / 'pages.tif', save_all=True, append_images=[page, page])
    report = check_data(coco_config(tmp_path))
    assert [(f.severity, f.code, f.count, f.total) for f in report.findings] == [('warning', 'image-pages', 1, 4)]
    assert 'pages.tif has 3 pages' in report.findings[0].message


def test_small_images_and_what_filters_leave(tmp_path):
    write_coco(tmp_path)
    with pytest.raises(DataError, match=r'filter_cfg\.min_size=100'):
        check_data(coco_config(tmp_path, **{'train_dataloader.dataset.filter_cfg.min_size': 100}))


def test_objects_that_filters_drop_are_counted_by_reason(tmp_path):
    def change(content: dict) -> None:
        first, second, third, fourth, fifth, *_ = content['annotations']
        first.update(iscrowd=1)
        second.update(ignore=1)
        third.update(area=0)
        fourth.update(image_id=77, iscrowd=1)
        fifth.update(category_id=9)

    write_coco(tmp_path, change, splits=('train',))
    report = check_data(coco_config(tmp_path), allow=['area-zero', 'unknown-category', 'unknown-image'])
    (finding,) = (f for f in report.findings if f.code == 'objects-left-out')
    assert (finding.count, finding.total) == (5, 12)
    reasons = '1 of unknown images, 1 of other categories, 1 of no area, 1 crowds, 1 with the key ignore'
    assert finding.message == f'CocoDataset leaves out objects: {reasons}'


def test_broken_json_is_named(tmp_path):
    write_coco(tmp_path)
    path = tmp_path / 'train.json'
    for text in (path.read_text()[:-20], '[]', '{"images": [1], "annotations": [], "categories": []}', ''):
        path.write_text(text)
        with pytest.raises(DataError, match=r'train\.json: it is not a complete COCO annotation file'):
            check_data(coco_config(tmp_path))


def test_columns_do_not_depend_on_chunks(tmp_path, monkeypatch):
    write_coco(tmp_path)
    whole = CocoFile(tmp_path / 'train.json')
    monkeypatch.setattr('hybrid_backbones.datasets.checks.coco_file._CHUNK', 5)
    parts = CocoFile(tmp_path / 'train.json')
    for name in ('boxes', 'areas', 'segmentation', 'polygon_sizes', 'mask_bounds', 'image_rows', 'category_rows'):
        assert (getattr(whole, name) == getattr(parts, name)).all(), name
    x, y, w, h = json.loads((tmp_path / 'train.json').read_text())['annotations'][7]['bbox']
    assert parts.mask_bounds[7].tolist() == [x, y, x + w, y + h]
