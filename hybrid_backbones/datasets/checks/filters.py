"""Which images and objects does the dataset class leave out of training?"""

from collections.abc import Iterator

import numpy as np

from .coco_file import CocoFile
from .findings import ERROR, LARGE_SHARE_OF_STRAYS, NOTE, WARNING, Finding, loss_severity
from .rows import FIX, image_bounds
from .view import DatasetView, DataView


def check_filters(data: DataView) -> Iterator[Finding]:
    """Findings about what is left for training."""
    for dataset, file in data.coco_files():
        if dataset.split == 'train' and not dataset.config.get('test_mode'):
            yield from _check_filters(dataset, file)


def _check_filters(dataset: DatasetView, file: CocoFile) -> Iterator[Finding]:
    """How many images and objects are left for training, and what takes the others."""
    options = dataset.config.get('filter_cfg') or {}
    kept = kept_objects(dataset, file)
    path = str(file.path)
    with_objects = np.zeros(len(file.images), bool)
    with_objects[file.image_rows[kept & (file.image_rows >= 0)]] = True
    min_size = options.get('min_size', 0)
    small = np.fmin(file.widths, file.heights) < min_size
    if small.any():
        row = int(np.flatnonzero(small)[0])
        yield Finding(
            loss_severity(int(small.sum()), len(small)),
            'image-small',
            path,
            f'images are smaller than filter_cfg.min_size={min_size}',
            record=f'image {file.images[row].get("id")!r}',
            key='filter_cfg.min_size',
            count=int(small.sum()),
            total=len(small),
            consequence='They are left out of training.',
            remedy=f'{dataset.where}.filter_cfg=dict(filter_empty_gt=True, min_size=1)',
        )
    bare = ~with_objects & ~small
    if options.get('filter_empty_gt') and bare.any():
        yield Finding(
            NOTE,
            'image-without-objects',
            path,
            'images have no object of the classes',
            key='filter_cfg.filter_empty_gt',
            record=f'image {file.images[int(np.flatnonzero(bare)[0])].get("id")!r}',
            count=int(bare.sum()),
            total=len(bare),
            consequence='filter_empty_gt=True leaves them out of training.',
            remedy=f'to train on them as background: {dataset.where}.filter_cfg=dict(filter_empty_gt=False)',
        )
    yield from _left_out(dataset, file)
    if not kept.any():
        yield Finding(
            ERROR,
            'no-objects',
            path,
            'no object is left to train on',
            count=0,
            total=file.num_annotations,
            consequence='Training runs to its end and learns nothing; the findings above say what takes them.',
            remedy=FIX,
        )


def kept_objects(dataset: DatasetView, file: CocoFile) -> np.ndarray:
    """(N,) bool: the annotations that `CocoDataset.parse_data_info` keeps and does not ignore."""
    return ~np.any(list(_dropped_objects(dataset, file).values()), axis=0)


def _dropped_objects(dataset: DatasetView, file: CocoFile) -> dict[str, np.ndarray]:
    """(N,) bool by reason: the annotations that `CocoDataset.parse_data_info` leaves out or ignores."""
    names = {category.get('name') for category in file.categories}
    classes = set(dataset.classes or ()) & names
    wanted = np.array([category.get('name') in classes for category in file.categories] + [False])
    image_w, image_h = image_bounds(file)
    x, y, w, h = file.boxes.T
    with np.errstate(invalid='ignore'):
        inside = (np.fmin(x + w, image_w) > np.fmax(x, 0)) & (np.fmin(y + h, image_h) > np.fmax(y, 0))
        return {
            'of unknown images': file.image_rows < 0,
            'of other categories': ~wanted[file.category_rows],
            'outside of their images': ~inside,
            'narrower than a pixel': ~((w >= 1) & (h >= 1)),
            'of no area': ~(file.areas > 0),
            'crowds': file.crowd > 0,
            'with the key ignore': file.ignored,
        }


def _left_out(dataset: DatasetView, file: CocoFile) -> Iterator[Finding]:
    """How many objects are not trained on, each counted under the first reason."""
    reasons = _dropped_objects(dataset, file)
    lost, parts = np.zeros(file.num_annotations, bool), []
    for reason, rows in reasons.items():
        if (new := rows & ~lost).any():
            parts.append(f'{int(new.sum())} {reason}')
        lost |= rows
    if not lost.any():
        return
    on_purpose = (reasons['crowds'] | reasons['with the key ignore']).sum()
    yield Finding(
        NOTE if on_purpose < LARGE_SHARE_OF_STRAYS * len(lost) else WARNING,
        'objects-left-out',
        str(file.path),
        f'{dataset.name} leaves out objects: {", ".join(parts)}',
        record=file.name(int(np.flatnonzero(lost)[0])),
        count=int(lost.sum()),
        total=len(lost),
        consequence='They are not trained on; crowds and ignored ones are no background either.',
    )
