"""Mechanical repairs of annotation files and label maps: new files, the originals stay as they are."""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as mask_utils

from .._files import write_whole, written_whole
from .checks.coco_file import CocoFile, on_a_line, read_text, run_length_bounds
from .checks.image_file import read_header
from .checks.label_maps import label_pairs
from .checks.objects import LARGEST_AREA, box_form
from .checks.view import DatasetView, DataView

IGNORED = 255


def repair(data: DataView, out: Path) -> Iterator[str]:
    """Write repaired files of all datasets below `out`, and say for each what was done and how to use it."""
    done: dict[Path, Path] = {}
    for dataset in data.datasets:
        if dataset.coco is not None:
            source = dataset.ann_file.resolve()
            if source not in done:
                done[source] = _free_name(out / source.parent.name / source.name, done)
                changes = repair_annotations(dataset, dataset.coco, done[source])
                yield f'{done[source]}: ' + (', '.join(f'{n} {what}' for what, n in changes.items()) or 'unchanged')
            yield f'  {dataset.where}.ann_file={str(done[source].absolute())!r}'
            for evaluator in data.evaluators(dataset.split):
                if isinstance(evaluator.get('ann_file'), str) and Path(evaluator['ann_file']).resolve() == source:
                    yield f'  {dataset.split}_evaluator.ann_file={str(done[source].absolute())!r}'
        elif dataset.is_segmentation and not isinstance(dataset.records, Exception) and dataset.records:
            source = dataset.folders.get('seg_map_path', dataset.root).resolve()
            if source not in done:
                done[source] = _free_name(out / source.parent.name / source.name, done)
                changed = repair_label_maps(dataset, source, done[source])
                yield f'{done[source]}: {changed} label maps changed'
            yield f'  {dataset.where}.data_prefix.seg_map_path={str(done[source].absolute())!r}'


def _free_name(path: Path, done: dict[Path, Path]) -> Path:
    names = set(done.values())
    candidates = (path.with_name(f'{path.stem}_{i}{path.suffix}') if i else path for i in range(len(names) + 1))
    return next(candidate for candidate in candidates if candidate not in names)


def repair_annotations(dataset: DatasetView, file: CocoFile, out: Path) -> Counter[str]:
    """Write an annotation file of COCO's layout without what can be put right mechanically.

    Returns:
        How many records were changed, by what was done.

    Raises:
        ValueError: The file is no JSON, or no object.
    """
    content = json.loads(read_text(file.path))
    if not isinstance(content, dict):
        raise ValueError(f'{file.path} holds a {type(content).__name__}, which no repair can turn into annotations')
    for key in ('images', 'annotations', 'categories'):
        content.setdefault(key, [])
    changes: Counter[str] = Counter()
    _repair_categories(content, dataset.classes or (), changes)
    _repair_images(content, dataset, changes)
    _repair_references(content, changes)
    form = box_form(file)
    sizes = {image['id']: (image['width'], image['height']) for image in content['images']}
    with_masks = dataset.uses_masks or dataset.data.evaluates_masks(dataset.split)
    kept = []
    for record in content['annotations']:
        if _repair_object(record, form, sizes[record['image_id']], with_masks, changes):
            kept.append(record)
    unique = {(record['image_id'], record['category_id'], *record['bbox']): record for record in reversed(kept)}
    if len(unique) < len(kept):
        changes['objects listed again removed'] += len(kept) - len(unique)
    content['annotations'] = kept = list(reversed(unique.values()))
    _renumber(kept, changes)
    write_whole(out, json.dumps(content))
    return changes


def _repair_categories(content: dict, classes: tuple[str, ...], changes: Counter[str]) -> None:
    """Names as the config writes them, in its order; one category for each, also for those that the file lacks."""
    categories = content['categories']
    names = {category.get('name') for category in categories}
    folded = {name.strip().casefold(): name for name in classes if name not in names}
    for category in categories:
        name = str(category.get('name'))
        if name not in classes and name.strip().casefold() in folded:
            category['name'] = folded[name.strip().casefold()]
            changes['categories renamed'] += 1
    first: dict[str, Any] = {}
    merged = {}
    for category in categories:
        kept = first.setdefault(category.get('name'), category)
        merged[str(category.get('id'))] = kept.get('id')
    if len(first) < len(categories):
        changes['categories merged'] += len(categories) - len(first)
        for record in content['annotations']:
            record['category_id'] = merged.get(str(record.get('category_id')), record.get('category_id'))
    free = max((int(c['id']) for c in first.values() if str(c.get('id')).isdigit()), default=0) + 1
    if any(name in first for name in classes):
        for name in classes:
            if name not in first:
                first[name] = dict(id=free, name=name)
                free += 1
                changes['categories added'] += 1
    position = {name: i for i, name in enumerate(classes)}
    content['categories'] = sorted(first.values(), key=lambda c: position.get(c.get('name'), len(classes)))


def _repair_images(content: dict, dataset: DatasetView, changes: Counter[str]) -> None:
    """Each image once, with the size that its file has."""
    unique: dict[Any, dict] = {}
    kept_ids = {}
    for image in content['images']:
        kept = unique.setdefault(image.get('file_name') or str(image.get('id')), image)
        kept_ids[str(image.get('id'))] = kept.get('id')
    if len(unique) < len(content['images']):
        changes['images listed again removed'] += len(content['images']) - len(unique)
        for record in content['annotations']:
            record['image_id'] = kept_ids.get(str(record.get('image_id')), record.get('image_id'))
    content['images'] = list(unique.values())
    folder = dataset.folders.get('img', dataset.root)
    for i, image in enumerate(dataset.data.progress(content['images'], desc='images')):
        image.setdefault('id', i + 1)
        path = folder / str(dataset.file_name(image))
        try:
            width, height = read_header(path).upright
        except OSError:
            width, height = image.get('width') or 0, image.get('height') or 0
        if (image.get('width'), image.get('height')) != (width, height):
            image['width'], image['height'] = width, height
            changes['sizes of images corrected'] += 1


def _repair_references(content: dict, changes: Counter[str]) -> None:
    """Ids of one type; records that refer to nothing are removed."""
    known = {
        key: {str(record['id']): record['id'] for record in content[name] if 'id' in record}
        for key, name in (('image_id', 'images'), ('category_id', 'categories'))
    }
    kept = []
    for record in content['annotations']:
        if all(str(record.get(key)) in ids for key, ids in known.items()):
            record.update({key: ids[str(record[key])] for key, ids in known.items()})
            kept.append(record)
    if len(kept) < len(content['annotations']):
        changes['annotations of unknown images or categories removed'] += len(content['annotations']) - len(kept)
    content['annotations'] = kept


def _repair_object(record: dict, form: str, size: tuple[int, int], with_masks: bool, changes: Counter[str]) -> bool:
    """Put one annotation right in place; False where nothing is left of it."""
    try:
        box = [float(value) for value in record['bbox']]
        x, y, w, h = box
        finite = bool(np.isfinite(box).all())
    except (KeyError, TypeError, ValueError):
        finite = False
    if not finite:
        changes['annotations without a box removed'] += 1
        return False
    if form.startswith('corners'):
        w, h = w - x, h - y
    elif form.startswith('centre'):
        x, y = x - w / 2, y - h / 2
    elif form.startswith('rows'):
        x, y, w, h = y, x, h, w
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, size[0]), min(y + h, size[1])
    if x1 - x0 < 1 or y1 - y0 < 1:
        changes['annotations with empty boxes or boxes outside of their images removed'] += 1
        return False
    fixed = [x, y, w, h] if (x0, y0, x1, y1) == (x, y, x + w, y + h) else [x0, y0, x1 - x0, y1 - y0]
    if fixed != record['bbox']:
        record['bbox'] = fixed
        changes['boxes corrected'] += 1
    if with_masks or record.get('segmentation'):
        _repair_mask(record, size, changes)
    if not isinstance(record.get('area'), (int, float)) or not 0 < record['area'] <= LARGEST_AREA:
        record['area'] = _area(record, size)
        changes['areas computed'] += 1
    if not isinstance(record.get('iscrowd'), int):
        record['iscrowd'] = 0
        changes['iscrowd added'] += 1
    return True


def _repair_mask(record: dict, size: tuple[int, int], changes: Counter[str]) -> None:
    """Nested polygons of six numbers or more that have an area; the box where nothing else is left."""
    segmentation = record.get('segmentation')
    if isinstance(segmentation, dict) and list(segmentation.get('size') or ()) == [size[1], size[0]]:
        bounds = run_length_bounds(segmentation)
        if bounds is not None and bounds[0] < bounds[2]:
            return
    polygons = segmentation if isinstance(segmentation, list) else []
    if polygons and not any(isinstance(value, list) for value in polygons):
        polygons = [polygons]
    elif polygons and all(isinstance(value, list) and len(value) == 2 for value in polygons):
        polygons = [list(chain.from_iterable(polygons))]  # of [x, y] pairs
    numbers = [[_number(v) for v in p] for p in polygons if isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0]
    finite = [polygon for polygon in numbers if np.isfinite(polygon).all()]
    usable = [p for p in finite if not on_a_line(np.array(p), np.array([len(p)])).any()]
    if not usable:
        x, y, w, h = record['bbox']
        usable = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        changes['masks replaced by boxes'] += 1
    elif usable != segmentation:
        changes['polygons corrected'] += 1
    record['segmentation'] = usable


def _number(value: Any) -> float:
    """The number that a value is or spells, NaN for none."""
    try:
        return value if isinstance(value, (int, float)) else float(value)
    except (TypeError, ValueError):
        return float('nan')


def _area(record: dict, size: tuple[int, int]) -> float:
    """Area of the mask in pixels, of the box where there is none."""
    segmentation = record.get('segmentation')
    if not segmentation:
        return float(record['bbox'][2] * record['bbox'][3])
    if isinstance(segmentation, dict) and isinstance(segmentation['counts'], str):
        return float(mask_utils.area(segmentation))
    return float(np.sum(mask_utils.area(mask_utils.frPyObjects(segmentation, size[1], size[0]))))


def _renumber(records: list[dict], changes: Counter[str]) -> None:
    """Ids from 1 on, where they are absent, double or 0."""
    ids = [str(record.get('id')) for record in records]
    if len(set(ids)) < len(ids) or '0' in ids or 'None' in ids:
        for i, record in enumerate(records):
            record['id'] = i + 1
        changes['annotations numbered from 1'] += len(records)


def repair_label_maps(dataset: DatasetView, source: Path, out: Path) -> int:
    """Write the label maps of a dataset as 8-bit PNGs of one class a pixel; returns how many differ from the source.

    Colours become classes by the palette, 0/255 masks become 0 and 1, values as many as the classes are numbered in
    ascending order; sizes are those of the images. What has no class is ignored.
    """
    pairs = [(image, label) for image, label in label_pairs(dataset) if label.is_file()]
    first = 1 if getattr(dataset.built, 'reduce_zero_label', False) else 0
    table = _value_table((_read(label) for _, label in pairs), len(dataset.classes or ()), first)
    changed = 0
    for image, label in dataset.data.progress(pairs, desc='label maps'):
        array = _read(label)
        fixed = _resized(_as_classes(array, dataset, first, table), image)
        changed += fixed.shape != array.shape or bool((fixed != array).any())
        path = out / label.resolve().relative_to(source) if label.resolve().is_relative_to(source) else out / label.name
        with written_whole(path.with_suffix('.png')) as temporary:
            Image.fromarray(fixed).save(temporary)
    return changed


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def _value_table(arrays: Iterator[np.ndarray], num_classes: int, first: int) -> dict[int, int]:
    """What each value becomes; {} where values are classes already."""
    values: set[int] = set()
    for array in arrays:
        if array.ndim == 2 or (array[..., :1] == array[..., :3]).all():
            values |= set(np.unique(array if array.ndim == 2 else array[..., 0]).tolist())
    allowed = {*range(num_classes + first), IGNORED}
    if values == {0, IGNORED} and num_classes >= 2:
        return {0: first, IGNORED: first + 1}
    if values <= allowed:
        return {}
    ordered = sorted(values - ({IGNORED} if len(values) == num_classes + 1 else set()))
    return {value: first + i for i, value in enumerate(ordered)} if len(ordered) == num_classes else {}


def _as_classes(array: np.ndarray, dataset: DatasetView, first: int, table: dict[int, int]) -> np.ndarray:
    """(H, W) uint8 classes of a label map."""
    if array.ndim == 3 and not (array[..., :1] == array[..., :3]).all():
        fixed = np.full(array.shape[:2], IGNORED, np.uint8)
        for i, colour in enumerate(dataset.meta.get('palette') or ()):
            fixed[(array[..., :3] == np.asarray(colour)).all(-1)] = first + i
        return fixed
    values = (array if array.ndim == 2 else array[..., 0]).astype(np.int64)
    if table:
        return np.vectorize(lambda value: table.get(value, IGNORED), otypes=[np.uint8])(values)
    highest = len(dataset.classes or ()) - 1 + first
    return np.where((values >= 0) & (values <= highest), values, IGNORED).astype(np.uint8)


def _resized(labels: np.ndarray, image: Path) -> np.ndarray:
    """Labels at the size of their image; transposed where that fits."""
    try:
        width, height = read_header(image).upright
    except OSError:
        return labels
    if labels.shape == (height, width):
        return labels
    if labels.shape == (width, height):
        return np.ascontiguousarray(labels.T)
    return np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
