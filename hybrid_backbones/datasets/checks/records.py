"""Are the records of an annotation file complete, each with an id of its own, and do they refer to each other?"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from .coco_file import CocoFile
from .findings import ERROR, LARGE_SHARE_OF_STRAYS, NOTE, WARNING, Finding, loss_severity
from .rows import FIX, finder
from .view import DatasetView, DataView


def check_records(data: DataView) -> Iterator[Finding]:
    """Findings about the records of every annotation file of COCO's layout."""
    for dataset, file in data.coco_files(usable=False):
        if file.error or not file.images or not file.num_annotations:
            if file.error or not dataset.only_predicts:
                yield from _check_content(dataset, file)
            continue
        yield from _check_ids(dataset, file)
        yield from _check_references(dataset, file)


def _check_content(dataset: DatasetView, file: CocoFile) -> Iterator[Finding]:
    path = str(file.path)
    if file.error:
        yield Finding(
            ERROR,
            'annotation-file',
            path,
            f'it is not a complete COCO annotation file ({file.error})',
            remedy='fetch or export it again; expected: {"images": [...], "annotations": [...], "categories": [...]}',
        )
        return
    absent = file.missing_keys
    when = '' if dataset.split == 'train' else ' at the first validation'
    if absent:
        yield Finding(
            ERROR,
            'annotation-file',
            path,
            f'it is not a complete COCO annotation file: it lacks {" and ".join(map(repr, absent))}',
            key=absent[0],
            consequence=f'MMDetection ends with a KeyError{when}.',
            remedy='export it again with all three of images, annotations, categories',
        )
    elif not file.images:
        yield Finding(ERROR, 'no-images', path, 'it lists no images', key='images', remedy='export it again')
    else:
        what = 'Nothing can be learned.' if dataset.split == 'train' else 'AP is -1 or 0 whatever the model predicts.'
        yield Finding(
            ERROR,
            'no-objects',
            path,
            f'it lists {len(file.images)} images and no annotations',
            key='annotations',
            consequence=what,
            remedy='export it with the annotations',
        )


def _check_ids(dataset: DatasetView, file: CocoFile) -> Iterator[Finding]:
    find = finder(file)
    absent = np.fromiter((i is None for i in file.ids), bool, file.num_annotations)
    yield from find(
        ERROR,
        'annotation-id',
        absent,
        'annotations without an id',
        key='id',
        remedy=FIX,
        consequence='MMDetection ends with a KeyError.',
    )
    if absent.any():
        return
    keys = [i if isinstance(i, (int, float, str)) else repr(i) for i in file.ids]
    if len(set(keys)) < len(keys) and getattr(dataset.cls, 'ANN_ID_UNIQUE', True):
        counts = Counter(keys)
        rows = np.fromiter((counts[key] > 1 for key in keys), bool, len(keys))
        yield from find(
            ERROR,
            'annotation-id',
            rows,
            'annotations share their id with others',
            key='id',
            remedy=FIX,
            consequence='MMDetection refuses the file; evaluation keeps one of each.',
        )
    zero = np.fromiter((key in (0, '0', False) for key in keys), bool, len(keys))
    if dataset.split == 'train':
        yield from find(
            NOTE,
            'annotation-id-zero',
            zero,
            'an annotation has id 0',
            key='id',
            remedy=FIX,
            consequence='Training is not affected; as ground truth for COCO metrics it would be.',
        )
    else:
        yield from find(
            ERROR,
            'annotation-id-zero',
            zero,
            'an annotation has id 0',
            key='id',
            remedy=FIX,
            consequence='COCO evaluation takes id 0 for "not matched": its detection counts as false, and '
            'AP is too low.',
        )


def _check_references(dataset: DatasetView, file: CocoFile) -> Iterator[Finding]:
    find = finder(file)
    path = str(file.path)
    names = [image.get('id') for image in file.images]
    for key in ('id', 'width', 'height'):
        rows = [i for i, image in enumerate(file.images) if image.get(key) is None]
        if rows:
            yield Finding(
                ERROR,
                'image-record',
                path,
                f'images without {key}',
                record=f'image {names[rows[0]]!r}',
                key=key,
                count=len(rows),
                total=len(file.images),
                consequence='MMDetection ends with a KeyError.',
                remedy=FIX,
            )
    for key, values in (('width', file.widths), ('height', file.heights)):
        rows = [i for i in np.flatnonzero(~(values > 0)) if file.images[i].get(key) is not None]
        if rows:
            yield Finding(
                ERROR,
                'image-record',
                path,
                f'{key} of images is not a positive number',
                record=f'image {names[rows[0]]!r}',
                key=key,
                count=len(rows),
                total=len(file.images),
                consequence='Its objects are taken to lie outside of it.',
                remedy=FIX,
            )
    yield from _check_file_names(dataset, file)
    yield from _check_double_images(file)
    for code, rows, key, known in (
        ('unknown-image', file.image_rows < 0, 'image_id', file.image_index),
        ('unknown-category', file.category_rows < 0, 'category_id', file.category_index),
    ):
        given = file.image_ids if key == 'image_id' else file.category_ids
        kind = key.removesuffix('_id')
        hint = ''
        if rows.any():
            value = given[int(np.flatnonzero(rows)[0])]
            if str(value) in map(str, known):
                hint = f': {value!r} is a {type(value).__name__}, the ids of {kind} records are of another type'
        yield from find(
            LARGE_SHARE_OF_STRAYS,
            code,
            rows,
            f'{key} of annotations is the id of no {kind}{hint}',
            key=key,
            consequence='MMDetection leaves these objects out.',
            remedy=FIX,
        )


def _check_double_images(file: CocoFile) -> Iterator[Finding]:
    if len(file.image_index) == len(file.images):
        return
    counts = Counter(str(image.get('id')) for image in file.images)
    double = [image for image in file.images if counts[str(image.get('id'))] > 1]
    names: dict[str, set] = {}
    for image in double:
        names.setdefault(str(image.get('id')), set()).add(str(image.get('file_name')))
    mixed = [key for key, files in names.items() if len(files) > 1]
    yield Finding(
        ERROR if mixed else WARNING,
        'double-image',
        str(file.path),
        'several files have the same image id' if mixed else 'images are listed more than once',
        record=f'image {mixed[0] if mixed else double[0].get("id")}',
        key='id',
        count=len(double),
        total=len(file.images),
        consequence='Of each id the last image is used, with the objects of all.',
        remedy=FIX,
    )


def _check_file_names(dataset: DatasetView, file: CocoFile) -> Iterator[Finding]:
    """Every image names its file, and no two images the same one."""
    names = [dataset.file_name(image) for image in file.images]
    nameless = [i for i, name in enumerate(names) if not isinstance(name, str) or not name]
    if nameless:
        yield Finding(
            ERROR,
            'image-record',
            str(file.path),
            'images without the name of their file',
            record=f'image {file.images[nameless[0]].get("id")!r}',
            key='file_name',
            count=len(nameless),
            total=len(names),
            consequence='MMDetection ends with an error that names neither file nor image.',
            remedy='export it again with file_name, relative to data_prefix.img',
        )
    parted = _parted_images(file, names)
    if parted:
        name, ids = parted[0]
        yield Finding(
            loss_severity(len(parted), len(names)),
            'image-parted',
            str(file.path),
            'an image file is listed under several ids, each with other objects',
            record=f'{name}: ids {", ".join(map(repr, ids[:4]))}',
            key='file_name',
            count=len(parted),
            total=len(names),
            consequence='Each copy has a part of the objects: the others are background in it.',
            remedy=FIX,
        )


def _parted_images(file: CocoFile, names: list[Any]) -> list[tuple[str, list[Any]]]:
    """File names whose objects are divided among image records of several ids, and these ids."""
    rows: dict[str, dict[Any, int]] = {}
    for image_id, row in file.image_index.items():
        if isinstance(names[row], str) and names[row]:
            rows.setdefault(names[row], {})[image_id] = row
    shared = {name: copies for name, copies in rows.items() if len(copies) > 1}
    if not shared:
        return []
    order = np.argsort(file.image_rows, kind='stable')
    ends = np.searchsorted(file.image_rows[order], np.arange(len(names) + 1))
    boxes = file.boxes[order]

    def objects(row: int) -> frozenset[bytes]:
        return frozenset(box.tobytes() for box in boxes[ends[row] : ends[row + 1]])

    return [
        (name, list(copies)) for name, copies in shared.items() if len({objects(row) for row in copies.values()}) > 1
    ]
