"""Folders of every layout: what is read of them, how they are divided, and what is refused."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import NO_REAL_IMAGES, REAL_IMAGES
from datasets import exports
from datasets.exports import CLASSES, NAMES, OBJECT_EXPORTS, boxes, label_map, write_image, write_masks, write_text
from PIL import Image

from hybrid_backbones.datasets.conversion import LayoutError, converted, read_folder
from hybrid_backbones.datasets.conversion.duplicates import group_duplicates

TABLE = 'background:0,0,0::\ncat:200,30,30::\ndog:30,60,200::\n'
PALETTE = np.array([(0, 0, 0), (200, 30, 30), (30, 60, 200)], np.uint8)


def convert(source: Path, out: Path, task: str = 'detection', **options):
    with converted(source, task, out, **options) as data:
        pass
    return data


def snapshot(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob('*') if path.is_file()}


def objects_of(out: Path) -> dict[str, list]:
    """Class and box of all objects by the name of their image, over all splits."""
    found = {}
    for file in (out / 'annotations').glob('*.json'):
        content = json.loads(file.read_text(encoding='utf-8'))
        names = {category['id']: category['name'] for category in content['categories']}
        folder = out / file.stem.removeprefix('instances_')
        for image in content['images']:
            assert Image.open(folder / image['file_name']).size == (image['width'], image['height'])
            records = [record for record in content['annotations'] if record['image_id'] == image['id']]
            found[Path(image['file_name']).stem] = [(names[r['category_id']], r['bbox']) for r in records]
            assert all(
                record['area'] == pytest.approx(record['bbox'][2] * record['bbox'][3], rel=0.02) for record in records
            )
    return found


@pytest.mark.parametrize('layout', OBJECT_EXPORTS)
def test_every_layout_gives_the_same_objects(tmp_path, layout):
    OBJECT_EXPORTS[layout](tmp_path / 'raw')
    before = snapshot(tmp_path / 'raw')
    data = convert(tmp_path / 'raw', tmp_path / 'out')
    assert data.classes == CLASSES
    found = objects_of(tmp_path / 'out')
    assert sorted(found) == sorted(NAMES)
    for i, name in enumerate(NAMES):
        for (label, box), (c, expected) in zip(found[name], boxes(i), strict=True):
            assert label == CLASSES[c]
            np.testing.assert_allclose(box, expected, atol=1e-3)
    assert snapshot(tmp_path / 'raw') == before
    assert data.with_masks == (layout in ('coco', 'roboflow_coco', 'cvat'))
    expected = dict(roboflow_coco=dict(train=7, val=2, test=1), yolo=dict(train=8, val=2))
    assert data.counts == expected.get(layout, dict(train=8, val=2))


def test_images_are_links(tmp_path):
    exports.write_coco(tmp_path / 'raw')
    convert(tmp_path / 'raw', tmp_path / 'out')
    assert all(path.stat().st_nlink == 2 for path in (tmp_path / 'out' / 'train2017').iterdir())


def test_polygons_of_yolo_are_masks(tmp_path):
    exports.write_yolo(tmp_path / 'raw', exports.polygon_line)
    data = convert(tmp_path / 'raw', tmp_path / 'out')
    assert data.with_masks
    record = json.loads((tmp_path / 'out' / 'annotations' / 'instances_val2017.json').read_text())['annotations'][0]
    np.testing.assert_allclose(record['segmentation'][0], exports.outline(boxes(8)[0][1]), atol=1e-3)


@pytest.mark.parametrize('form', ['classes', 'binary', 'values', 'colours', 'palette', 'table_of_values'])
def test_label_maps_of_every_coding(tmp_path, form):
    def encode(labels: np.ndarray) -> np.ndarray:
        if form in ('classes', 'table_of_values'):
            return labels
        return PALETTE[labels] if form in ('colours', 'palette') else labels * 100 if form == 'values' else labels * 255

    options = {}
    if form == 'binary':
        write_masks(tmp_path / 'raw', lambda labels: (labels > 0).astype(np.uint8) * 255)
        options['classes'] = ['background', 'animal']
    else:
        write_masks(tmp_path / 'raw', encode)
    if form == 'palette':
        for path in (tmp_path / 'raw' / 'masks').iterdir():
            Image.open(path).quantize(8).save(path)
    if form in ('colours', 'palette'):
        write_text(tmp_path / 'raw' / 'labelmap.txt', TABLE)
    if form in ('classes', 'values'):
        options['classes'] = ['background', *CLASSES]
    if form == 'table_of_values':
        write_text(tmp_path / 'raw' / '_classes.csv', 'Pixel Value, Class\n0, background\n1, cat\n2, dog\n')
    data = convert(tmp_path / 'raw', tmp_path / 'out', 'segmentation', **options)
    assert data.counts == dict(train=8, val=2)
    maps = {path.stem: path for path in (tmp_path / 'out' / 'annotations').rglob('*.png')}
    assert sorted(maps) == sorted(NAMES)
    for i, name in enumerate(NAMES):
        expected = label_map(i) > 0 if form == 'binary' else label_map(i)
        np.testing.assert_array_equal(np.asarray(Image.open(maps[name])), expected)
        assert Image.open(maps[name]).mode == 'L'
    if form == 'colours':
        assert data.palette == [tuple(colour) for colour in PALETTE.tolist()]


def test_ignored_classes_and_255_are_left_out(tmp_path):
    write_masks(tmp_path / 'raw', lambda labels: np.where(labels == 2, 255, labels))
    data = convert(tmp_path / 'raw', tmp_path / 'out', 'segmentation', classes=['ignore', 'cat', 'dog'])
    assert data.classes == ('cat', 'dog') and 'in no label map: dog' in data.notes
    values = {v for path in (tmp_path / 'out').rglob('*.png') for v in np.unique(np.asarray(Image.open(path))).tolist()}
    assert values == {0, 255}


def test_label_maps_are_drawn_of_outlines(tmp_path):
    exports.write_cvat(tmp_path / 'raw')
    data = convert(tmp_path / 'raw', tmp_path / 'out', 'segmentation')
    assert data.classes == ('background', *CLASSES)
    for path in (tmp_path / 'out' / 'annotations').rglob('*.png'):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), label_map(NAMES.index(path.stem)))


def test_images_of_several_suffixes_get_one(tmp_path):
    write_masks(tmp_path / 'raw')
    source = tmp_path / 'raw' / 'images' / f'{NAMES[0]}.jpg'
    Image.open(source).save(source.with_suffix('.png'))
    source.unlink()
    data = convert(tmp_path / 'raw', tmp_path / 'out', 'segmentation', classes=['background', *CLASSES])
    assert data.suffix == '.jpg' and len(list((tmp_path / 'out' / 'images').rglob('*.jpg'))) == 10


def test_equal_names_in_several_folders(tmp_path):
    for i, folder in enumerate(('a', 'b')):
        write_image(tmp_path / 'raw' / folder / '1.jpg', i)
        write_text(tmp_path / 'raw' / folder / '1.txt', exports.yolo_line(0, (1, 2, 30, 30)))
    convert(tmp_path / 'raw', tmp_path / 'out', classes=['cat'])
    assert sorted(objects_of(tmp_path / 'out')) == ['a_1', 'b_1']


def test_split_is_reproducible_and_by_class(tmp_path):
    exports.write_coco(tmp_path / 'raw')

    def validation(out: str, seed: int) -> list[str]:
        convert(tmp_path / 'raw', tmp_path / out, seed=seed)
        return sorted(path.stem for path in (tmp_path / out / 'val2017').iterdir())

    chosen = validation('a', 0)
    assert chosen == validation('b', 0)
    assert any(validation(str(seed), seed) != chosen for seed in range(1, 4))
    # Half of the images have a dog, so one of two for validation has.
    assert Counter(len(boxes(NAMES.index(name))) for name in chosen) == {1: 1, 2: 1}


def test_near_duplicates_stay_together(tmp_path):
    """Copies of each image, smaller, brighter and compressed harder."""
    for i in range(12):
        write_image(tmp_path / f'{i}_a.jpg', i)
        image = Image.open(tmp_path / f'{i}_a.jpg')
        image.resize((61, 47)).save(tmp_path / f'{i}_b.jpg', quality=40)
        image.point(lambda v: min(v + 12, 255)).save(tmp_path / f'{i}_c.png')
    paths = sorted(tmp_path.iterdir())
    groups = [sorted(paths[i].stem for i in group) for group in group_duplicates(paths)]
    assert sorted(groups) == sorted([f'{i}_a', f'{i}_b', f'{i}_c'] for i in range(12))

    for path in paths:
        write_text(path.with_suffix('.txt'), exports.yolo_line(0, (4, 4, 30, 30)))
    convert(tmp_path, tmp_path.parent / 'out', classes=['cat'])
    splits = {p.stem: p.parent.name for p in (tmp_path.parent / 'out').rglob('*') if p.suffix in ('.jpg', '.png')}
    assert len(splits) == 36 and set(splits.values()) == {'train2017', 'val2017'}
    assert all(splits[f'{i}_a'] == splits[f'{i}_b'] == splits[f'{i}_c'] for i in range(12))


def test_augmented_copies_of_roboflow_stay_together(tmp_path):
    for i in range(4):
        write_image(tmp_path / f'a_jpg.rf.{i}0f.jpg', i)
    write_image(tmp_path / 'b_jpg.rf.90f.jpg', 9)
    assert group_duplicates(sorted(tmp_path.iterdir())) == [[0, 1, 2, 3], [4]]


def test_classes_can_be_chosen(tmp_path):
    exports.write_coco(tmp_path / 'raw')
    data = convert(tmp_path / 'raw', tmp_path / 'out', classes=['dog'])
    assert data.classes == ('dog',) and '10 objects of other classes left out' in data.notes
    with pytest.raises(LayoutError, match='--classes bird: the folder has cat, dog'):
        read_folder(tmp_path / 'raw', 'detection', classes=['bird'])


def test_images_without_labels(tmp_path):
    exports.write_yolo(tmp_path / 'raw')
    (tmp_path / 'raw' / 'labels' / 'train' / f'{NAMES[3]}.txt').unlink()
    (tmp_path / 'raw' / 'labels' / 'train' / f'{NAMES[4]}.txt').write_text('')
    data = convert(tmp_path / 'raw', tmp_path / 'out')
    assert data.counts == dict(train=7, val=2)
    assert any(note.startswith('left out, without label file') and NAMES[3] in note for note in data.notes)
    assert objects_of(tmp_path / 'out')[NAMES[4]] == []


def one_cvat_line(root: Path) -> None:
    exports.write_cvat(root)
    path = root / 'annotations.xml'
    write_text(path, re.sub('points="[^"]*"', 'points="5,5;15,15"', path.read_text(encoding='utf-8'), count=1))


def one_coco_line(root: Path) -> None:
    line = [5, 5, 15, 15, 25, 25]
    write_changed(root, lambda content: content['annotations'][0].update(segmentation=[line]))


def one_yolo_line(root: Path) -> None:
    exports.write_yolo(root, exports.polygon_line)
    write_text(root / 'labels' / 'train' / f'{NAMES[0]}.txt', '0 0.1 0.1 0.2 0.2 0.3 0.3\n')


@pytest.mark.parametrize(
    'write, note',
    [
        (one_cvat_line, '1 x polygon left out: it has no area'),
        (one_coco_line, 'instances_default.json: 1 objects left out: the outline has no area'),
        (one_yolo_line, '1 objects left out: they have no width, no height or no area'),
    ],
)
def test_outlines_without_area_are_left_out(tmp_path, write, note):
    write(tmp_path / 'raw')
    data = convert(tmp_path / 'raw', tmp_path / 'out')
    assert data.with_masks and note in data.notes
    assert sum(map(len, objects_of(tmp_path / 'out').values())) == 14


def unknown(root: Path) -> None:
    write_image(root / 'a.jpg', 0)
    write_text(root / 'notes.doc', 'cats')


def mixed(root: Path) -> None:
    exports.write_yolo(root)
    write_text(root / 'all.json', json.dumps(exports.coco_content(range(10))))


def without_names(root: Path) -> None:
    exports.write_yolo(root)
    (root / 'data.yaml').unlink()


def too_few_names(root: Path) -> None:
    exports.write_yolo(root)
    write_text(root / 'data.yaml', 'names: [cat]')


def bad_line(root: Path) -> None:
    exports.write_yolo(root)
    write_text(root / 'labels' / 'val' / f'{NAMES[8]}.txt', '0 0.5 0.5 0.2 0.2\n0 300 200 40 40\n')


def confidences(root: Path) -> None:
    exports.write_yolo(root, lambda c, box: f'{exports.yolo_line(c, box)} 0.9')


def missing_image(root: Path) -> None:
    exports.write_coco(root)
    (root / 'images' / f'{NAMES[0]}.jpg').unlink()


def cut_image(root: Path) -> None:
    exports.write_coco(root)
    path = root / 'images' / f'{NAMES[0]}.jpg'
    path.write_bytes(path.read_bytes()[:-40])


def broken_json(root: Path) -> None:
    exports.write_coco(root)
    path = root / 'annotations' / 'instances_default.json'
    path.write_text(path.read_text()[:-1])


def two_files(root: Path) -> None:
    exports.write_coco(root)
    shutil.copy(root / 'annotations' / 'instances_default.json', root / 'annotations' / 'copy.json')


def no_objects(root: Path) -> None:
    exports.write_coco(root)
    write_text(
        root / 'annotations' / 'instances_default.json',
        json.dumps(exports.coco_content(range(10)) | dict(annotations=[])),
    )


def incomplete_box(root: Path) -> None:
    exports.write_voc(root)
    path = root / 'Annotations' / f'{NAMES[0]}.xml'
    write_text(path, path.read_text(encoding='utf-8').replace('xmax', 'right'))


def nameless_class(root: Path) -> None:
    write_changed(root, lambda content: content['categories'][1].pop('name'))


def image_twice(root: Path) -> None:
    write_changed(root, lambda content: content['images'].append(dict(content['images'][0], id=77)))


def runs_of_another_size(root: Path) -> None:
    runs = dict(size=[9, 9], counts=[80, 1])
    write_changed(root, lambda content: content['annotations'][0].update(segmentation=runs))


def write_changed(root: Path, change: Callable[[dict], object]) -> None:
    exports.write_coco(root)
    content = exports.coco_content(range(10))
    change(content)
    write_text(root / 'annotations' / 'instances_default.json', json.dumps(content))


def other_image_size(root: Path) -> None:
    exports.write_voc(root)
    size = '<size><width>160</width><height>120</height></size>'
    replace_in(root / 'Annotations' / f'{NAMES[0]}.xml', '<object>', f'{size}<object>')


def nameless_object(root: Path) -> None:
    exports.write_voc(root)
    replace_in(root / 'Annotations' / f'{NAMES[0]}.xml', '<name>cat</name>', '')


def polylines(root: Path) -> None:
    exports.write_cvat(root)
    replace_in(root / 'annotations.xml', '<polygon', '<polyline')


def replace_in(path: Path, old: str, new: str) -> None:
    write_text(path, path.read_text(encoding='utf-8').replace(old, new))


def negative_class(root: Path) -> None:
    exports.write_yolo(root)
    write_text(root / 'labels' / 'train' / f'{NAMES[0]}.txt', '-1 0.5 0.5 0.2 0.2\n')


def double_names(root: Path) -> None:
    exports.write_yolo(root)
    write_text(root / 'data.yaml', 'names: [cat, cat]')


def one_look(root: Path) -> None:
    for i in range(4):
        write_image(root / f'{i}.jpg', 0)
        write_text(root / f'{i}.txt', '0 0.5 0.5 0.2 0.2')
    write_text(root / 'classes.txt', 'cat')


@pytest.mark.parametrize(
    'write, message',
    [
        (unknown, r'no known layout; found: .*1 x \.doc.*\n  coco: '),
        (mixed, r'several layouts: coco \(all\.json\), yolo .*--layout'),
        (without_names, r'class numbers 0 to 1.*no data\.yaml.*--classes NAME'),
        (too_few_names, r'class number 1, and there are 1 names: cat'),
        (bad_line, rf'{NAMES[8]}\.txt, line 2: .*outside of 0 to 1'),
        (confidences, r'line 1 has 6 numbers; expected `class x y width height`'),
        (Path.mkdir, r'no known layout; it has no files'),
        (nameless_class, r'instances_default\.json: category 1 has no name'),
        (image_twice, rf'{NAMES[0]}\.jpg is listed under several ids'),
        (runs_of_another_size, r'have the size \[9, 9\].*expected \[height, width\] of the image, \[60, 80\]'),
        (other_image_size, rf'{NAMES[0]}\.jpg is of 160 x 120 pixels there, and 80 x 60 as a file'),
        (nameless_object, rf'{NAMES[0]}\.xml: an object has no name of its class'),
        (negative_class, rf'{NAMES[0]}\.txt, line 1: the class number is -1'),
        (double_names, r'data\.yaml names cat more than once'),
        (polylines, r'no object in any of them; 15 x polyline left out'),
        (missing_image, rf'1 of 10 images are not in .*{NAMES[0]}\.jpg'),
        (cut_image, rf'{NAMES[0]}\.jpg: the JPEG is cut short'),
        (broken_json, r'instances_default\.json is no intact JSON'),
        (two_files, rf'{NAMES[0]}\.jpg is in .*copy\.json and in .*instances_default\.json'),
        (no_objects, r'10 images and no object'),
        (incomplete_box, rf'{NAMES[0]}\.xml: an object \(cat\) has no complete bndbox'),
        (write_masks, r'masks \(.*for segmentation alone; use --task segmentation'),
        (one_look, r'4 images of one look cannot be divided'),
    ],
)
def test_refused_for_detection(tmp_path, write, message):
    write(tmp_path / 'raw')
    with pytest.raises(LayoutError, match=f'(?s){message}'):
        convert(tmp_path / 'raw', tmp_path / 'out')
    assert [path.name for path in tmp_path.iterdir()] == ['raw']


def colours_unknown(root: Path) -> None:
    write_masks(root, lambda labels: PALETTE[labels])


def colour_missing(root: Path) -> None:
    colours_unknown(root)
    write_text(root / 'labelmap.txt', TABLE.replace('dog', 'ignore').replace('30,60,200', '30,60,201'))


def other_size(root: Path) -> None:
    write_masks(root, lambda labels: labels[:-1])
    write_text(root / 'classes.txt', 'background\ncat\ndog\n')


def no_maps(root: Path) -> None:
    write_masks(root)
    for path in (root / 'masks').iterdir():
        path.rename(path.with_stem(f'{path.stem}_0'))


def two_class_files(root: Path) -> None:
    write_masks(root)
    write_text(root / 'classes.txt', 'background\ncat\ndog\n')
    write_text(root / 'labels.txt', 'dog\ncat\nbackground\n')


@pytest.mark.parametrize(
    'write, message',
    [
        (write_masks, r'these values, and nobody says what they are: 0 \(\d+\.\d%\), 1 .*--classes NAME_OF_0'),
        (colours_unknown, r'no file says of which class: \(0, 0, 0\).*\(30, 60, 200\).*`NAME:R,G,B`'),
        (colour_missing, r'colours of no class: \(30, 60, 200\)'),
        (other_size, rf'size of their images: masks/{NAMES[0]}\.png \(80, 59\) \(image \(80, 60\)\)'),
        (no_maps, r'no known layout'),
        (two_class_files, r'classes\.txt and .*labels\.txt list other classes'),
        (exports.write_voc, r'for detection alone; use --task detection'),
        (exports.write_yolo, r'15 of 15 objects are boxes without an outline'),
    ],
)
def test_refused_for_segmentation(tmp_path, write, message):
    write(tmp_path / 'raw')
    with pytest.raises(LayoutError, match=f'(?s){message}'):
        convert(tmp_path / 'raw', tmp_path / 'out', 'segmentation')
    assert [path.name for path in tmp_path.iterdir()] == ['raw']


def test_class_file_that_is_missing(tmp_path):
    write_masks(tmp_path / 'raw')
    with pytest.raises(LayoutError, match=r'no class file names\.txt'):
        read_folder(tmp_path / 'raw', 'segmentation', classes=['names.txt'])


def test_nothing_is_left_of_a_conversion_that_fails_later(tmp_path):
    exports.write_coco(tmp_path / 'raw')
    with pytest.raises(RuntimeError), converted(tmp_path / 'raw', 'detection', tmp_path / 'out'):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ['raw']


def test_what_exists_is_not_overwritten(tmp_path):
    exports.write_coco(tmp_path / 'raw')
    (tmp_path / 'out').mkdir()
    with pytest.raises(FileExistsError, match='out exists'):
        convert(tmp_path / 'raw', tmp_path / 'out')


@pytest.mark.skipif(not REAL_IMAGES.is_dir(), reason=NO_REAL_IMAGES)
def test_real_detection_data(tmp_path):
    data = convert(REAL_IMAGES / 'pennfudan', tmp_path / 'out')
    assert data.counts == dict(train=100, val=40) and data.classes == ('person',) and data.with_masks


@pytest.mark.skipif(not REAL_IMAGES.is_dir(), reason=NO_REAL_IMAGES)
def test_real_label_maps(tmp_path):
    classes = [
        'sky',
        'building',
        'pole',
        'road',
        'pavement',
        'tree',
        'sign_symbol',
        'fence',
        'car',
        'pedestrian',
        'bicyclist',
    ]
    data = convert(REAL_IMAGES / 'camvid', tmp_path / 'out', 'segmentation', classes=classes)
    assert data.counts == dict(train=367, val=101) and data.classes == tuple(classes)
    same = 'annotations/{}/0016E5_04920.png'
    source, target = REAL_IMAGES / 'camvid' / same.format('train'), tmp_path / 'out' / same.format('training')
    assert target.read_bytes() == source.read_bytes()
