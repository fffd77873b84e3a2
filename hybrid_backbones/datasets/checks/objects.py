"""Do boxes, areas and crowd flags of objects mean what MMDetection and COCO evaluation take them for?"""

from collections.abc import Iterator

import numpy as np

from .coco_file import CocoFile
from .findings import ERROR, LARGE_SHARE, LARGE_SHARE_OF_STRAYS, NOTE, WARNING, Finding
from .rows import EVALUATION_ENDS, FIX, finder, image_bounds
from .view import DatasetView, DataView

# Where no mask shows what a box means: from this share of boxes over the border on, another notation is looked for.
_OVER_BORDER = 0.1
# Of larger objects COCO evaluation leaves out all.
LARGEST_AREA = 1e10


def check_objects(data: DataView) -> Iterator[Finding]:
    """Findings about the objects of every annotation file of COCO's layout."""
    for dataset, file in data.coco_files():
        for check in (_check_boxes, _check_doubles, _check_areas, _check_crowds):
            yield from check(dataset, file)


def _check_boxes(dataset: DatasetView, file: CocoFile) -> Iterator[Finding]:
    find = finder(file)
    rows = np.array(sorted(file.box_problems), np.int64)
    if len(rows):
        example = file.box_problems[int(rows[0])]
        yield from find(
            ERROR,
            'box',
            rows,
            f'bbox is not a list of four numbers: {example}',
            key='bbox',
            remedy=FIX,
            consequence='MMDetection ends with an error that names neither file nor annotation.',
        )
    x, y, w, h = file.boxes.T
    image_w, image_h = image_bounds(file)
    form = box_form(file)
    if form:
        yield from find(
            ERROR,
            'box-form',
            np.isfinite(x),
            f'bbox is given as {form}, not as [x, y, width, height]',
            key='bbox',
            consequence='Every box is of the wrong size: nothing right can be learned or measured.',
            remedy=FIX,
        )
        return
    with np.errstate(invalid='ignore'):
        empty = (w <= 0) | (h <= 0)
        outside = ~empty & ((x >= image_w) | (y >= image_h) | (x + w <= 0) | (y + h <= 0))
        thin = ~empty & ~outside & ((w < 1) | (h < 1))
        slack = 1 + 0.01 * np.fmax(image_w, image_h)
        across = (
            ~empty & ~outside & ((x < -slack) | (y < -slack) | (x + w > image_w + slack) | (y + h > image_h + slack))
        )
    dropped = 'MMDetection drops these objects in training'
    kept = '; COCO evaluation still counts them as misses.' if dataset.split != 'train' else '.'
    yield from find(
        LARGE_SHARE_OF_STRAYS,
        'box-empty',
        empty,
        'boxes have no or negative width or height',
        key='bbox',
        remedy=FIX,
        consequence=dropped + kept,
    )
    yield from find(
        LARGE_SHARE_OF_STRAYS,
        'box-outside',
        outside,
        'boxes lie outside of their images',
        key='bbox',
        consequence=dropped + kept,
        remedy=f'check width and height of the images; {FIX}',
    )
    yield from find(
        LARGE_SHARE_OF_STRAYS,
        'box-thin',
        thin,
        'boxes are narrower than one pixel',
        key='bbox',
        consequence=dropped + kept,
        remedy='coordinates are pixels, not shares of the image: multiply by width and height',
    )
    yield from find(
        WARNING,
        'box-across-border',
        across,
        'boxes reach over the border of their images',
        key='bbox',
        consequence='They are trained on and measured as they stand.',
        remedy=FIX,
    )


def _check_doubles(dataset: DatasetView, file: CocoFile) -> Iterator[Finding]:
    """Objects that are listed twice, as in exports that were joined."""
    rows = np.column_stack([file.image_rows, file.category_rows, file.boxes])
    first: dict[bytes, int] = {}
    again = [i for i, row in enumerate(rows) if first.setdefault(row.tobytes(), i) != i]
    yield from finder(file)(
        WARNING if dataset.split == 'train' else LARGE_SHARE_OF_STRAYS,
        'object-double',
        np.array(again, np.int64),
        'the same object is listed again: image, category and box are equal',
        key='bbox',
        remedy=FIX,
        consequence='It counts twice in the loss.'
        if dataset.split == 'train'
        else 'A detector finds it once: the others are misses, and AP is too low.',
    )


def box_form(file: CocoFile) -> str:
    """Another notation than x, y, width, height that the boxes are in, as far as the file shows it."""
    boxes = file.boxes
    image_w, image_h = image_bounds(file)
    usable = np.isfinite(boxes).all(1)
    known = usable & np.isfinite(file.mask_bounds).all(1)
    if known.sum() >= 3:
        given, bounds = boxes[known], file.mask_bounds[known]
        sides = bounds[:, 2:] - bounds[:, :2]
        tolerance = 2 + 0.02 * sides.max(1, keepdims=True)
        for form, expected in (
            ('[x, y, width, height]', np.hstack([bounds[:, :2], sides])),
            ('corners [x1, y1, x2, y2]', bounds),
            ('centre [cx, cy, width, height]', np.hstack([bounds[:, :2] + sides / 2, sides])),
            ('rows first [y, x, height, width]', np.hstack([bounds[:, 1::-1], sides[:, ::-1]])),
        ):
            if (np.abs(given - expected) <= tolerance).all(1).mean() > 0.8:
                return '' if form.startswith('[x') else form
        return ''
    if not usable.any():
        return ''
    x, y, w, h = boxes[usable].T
    wide, high = image_w[usable] + 1, image_h[usable] + 1
    with np.errstate(invalid='ignore'):
        if ((x + w > wide) | (y + h > high)).mean() <= _OVER_BORDER:
            return ''
        for form, fits in (
            ('corners [x1, y1, x2, y2]', (w > x) & (h > y) & (w <= wide) & (h <= high)),
            (
                'centre [cx, cy, width, height]',
                (x >= w / 2 - 1) & (y >= h / 2 - 1) & (x + w / 2 <= wide) & (y + h / 2 <= high),
            ),
            ('rows first [y, x, height, width]', (y + h <= wide) & (x + w <= high)),
        ):
            if fits.mean() > 0.99:
                return form
    return ''


def _check_areas(dataset: DatasetView, file: CocoFile) -> Iterator[Finding]:
    find = finder(file)
    absent = ~(np.abs(file.areas) <= LARGEST_AREA)
    ends = 'MMDetection ends with KeyError or TypeError at the first of them, naming neither file nor annotation.'
    yield from find(
        ERROR,
        'area-missing',
        absent,
        'annotations have no area, or one that is no number',
        key='area',
        consequence=ends,
        remedy=FIX,
    )
    with np.errstate(invalid='ignore'):
        boxes = file.boxes[:, 2] * file.boxes[:, 3]
        whole = (file.boxes[:, 2] >= 1) & (file.boxes[:, 3] >= 1)
        zero = whole & (file.areas <= 0)
        unlike = whole & ~zero & ((file.areas > 1.1 * boxes + 4) | (file.areas < 0.001 * boxes))
    yield from find(
        LARGE_SHARE,
        'area-zero',
        zero,
        'objects have area 0 or less',
        key='area',
        remedy=FIX,
        consequence='MMDetection drops objects of no area in training; COCO metrics call them small.',
    )
    if unlike.mean() > LARGE_SHARE:
        yield from find(
            WARNING,
            'area-unlike-box',
            unlike,
            'area is larger than the box, or less than a thousandth of it',
            key='area',
            remedy=FIX,
            consequence='COCO sorts objects into small, medium and large by it: AP_s, AP_m, AP_l are wrong.',
        )


def _check_crowds(dataset: DatasetView, file: CocoFile) -> Iterator[Finding]:
    find = finder(file)
    absent = np.isnan(file.crowd)
    if dataset.split == 'train':
        yield from find(
            NOTE,
            'iscrowd-missing',
            absent,
            'annotations have no iscrowd, or one that is no number',
            key='iscrowd',
            remedy=FIX,
            consequence='Training takes them as single objects; COCO evaluation would end in a KeyError.',
        )
    elif not dataset.is_a('LVISV05Dataset'):
        yield from find(
            ERROR,
            'iscrowd-missing',
            absent,
            'annotations have no iscrowd, or one that is no number',
            key='iscrowd',
            remedy=FIX,
            consequence=f"KeyError: 'iscrowd'. {EVALUATION_ENDS}",
        )
    crowds = file.crowd > 0
    if crowds.mean() > 0.5:
        lost = 'they are not trained on' if dataset.split == 'train' else 'they are not measured'
        yield from find(
            ERROR,
            'crowd',
            crowds,
            'most objects are crowds (iscrowd=1)',
            key='iscrowd',
            remedy=FIX,
            consequence=f'Regions of crowds are ignored: {lost}.',
        )
