"""Can the masks of the objects be drawn, and do they lie where their boxes are?"""

from collections.abc import Iterator

import numpy as np

from .coco_file import ABSENT, BLANK, BROKEN, EMPTY, FLAT, POLYGONS, RLE, CocoFile
from .findings import ERROR, LARGE_SHARE, LARGE_SHARE_OF_STRAYS, WARNING, Finding
from .rows import FIX, finder, image_bounds
from .view import DatasetView, DataView


def check_segmentations(data: DataView) -> Iterator[Finding]:
    """Findings about the masks of every annotation file whose masks are trained on or measured."""
    for dataset, file in data.coco_files():
        if dataset.uses_masks or (dataset.split != 'train' and data.evaluates_masks(dataset.split)):
            yield from _check_masks(dataset, file)
            yield from _check_mask_places(file)


def _check_masks(dataset: DatasetView, file: CocoFile) -> Iterator[Finding]:
    find = finder(file)
    kind = file.segmentation
    ends = 'An error of the data worker or of the first validation, which blames the image.'
    fix = f"{FIX}, or train boxes alone: with_mask=False, metric='bbox', no mask_head"
    for code, message in (
        (ABSENT, 'objects have no segmentation'),
        (EMPTY, 'objects have an empty segmentation'),
        (FLAT, 'polygons are not nested: expected [[x1, y1, x2, y2, ...]]'),
        (
            BROKEN,
            'segmentation is neither a list of polygons of numbers nor run lengths (size, counts) that fill their size',
        ),
    ):
        yield from find(ERROR, 'segmentation', kind == code, message, key='segmentation', consequence=ends, remedy=fix)
    yield from find(
        LARGE_SHARE,
        'mask-blank',
        kind == BLANK,
        'masks without a pixel of the object: run lengths of nothing, or polygons whose points lie on a line',
        key='segmentation',
        consequence='Its mask is learned as empty, and never found by an evaluation.',
        remedy=fix,
    )
    polygons = kind == POLYGONS
    lost = polygons & ((file.polygon_sizes[:, 1] < 6) | (file.odd_polygons & (file.polygon_sizes[:, 1] < 7)))
    yield from find(
        LARGE_SHARE,
        'polygon-short',
        lost,
        'objects have no polygon of six numbers or more',
        key='segmentation',
        consequence='MMDetection ignores them in training, without a message; pycocotools reads four '
        'numbers as a box [x, y, width, height].',
        remedy=FIX,
    )
    part = polygons & ~lost & ((file.polygon_sizes[:, 0] < 6) | file.odd_polygons)
    yield from find(
        WARNING,
        'polygon-part',
        part,
        'a polygon has fewer than six or an odd number of coordinates',
        key='segmentation',
        consequence='That part of the object is left out.',
        remedy=FIX,
    )


def _check_mask_places(file: CocoFile) -> Iterator[Finding]:
    find = finder(file)
    image_w, image_h = image_bounds(file)
    with np.errstate(invalid='ignore'):
        rle = (file.segmentation == RLE) & np.isfinite(image_w)
        wrong = rle & ((file.rle_sizes[:, 0] != image_h) | (file.rle_sizes[:, 1] != image_w))
        bounds, boxes = file.mask_bounds, file.boxes
        corners = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
        slack = 3 + 0.1 * np.fmax(boxes[:, 2:3], boxes[:, 3:4])
        usable = np.isfinite(bounds).all(1) & (boxes[:, 2:] >= 1).all(1)
        apart = usable & ((bounds[:, :2] < corners[:, :2] - slack) | (bounds[:, 2:] > corners[:, 2:] + slack)).any(1)
    swapped = wrong & (file.rle_sizes[:, 0] == image_w) & (file.rle_sizes[:, 1] == image_h)
    rows = np.flatnonzero(wrong)
    if len(rows):
        size = file.rle_sizes[rows[0]].astype(int).tolist()
        expected = [int(image_h[rows[0]]), int(image_w[rows[0]])]
        order = ' (height and width are exchanged)' if swapped.any() else ''
        yield from find(
            ERROR,
            'rle-size',
            wrong,
            f'size of run lengths is {size}, of the image {expected}{order}',
            key='segmentation.size',
            consequence='An error about shapes that names no file.',
            remedy='encode the masks again at the size of the image (size is [height, width])',
        )
    yield from find(
        LARGE_SHARE_OF_STRAYS,
        'mask-outside-box',
        apart,
        'masks reach out of their boxes',
        key='segmentation',
        consequence='Boxes and masks are trained towards different places.',
        remedy=FIX,
    )
