"""COCO's JSON files, with Roboflow's and CVAT's exports in it: objects with boxes, polygons and run lengths."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..checks.coco_file import read_text, run_length_bounds
from .class_files import ClassEntry
from .errors import LayoutError, shortened
from .folder import Folder, image_size, split_in_name
from .records import RawData, RawImage, RawObject, has_area

DESCRIPTION = 'COCO: *.json with `images`, `annotations` and `categories`, the images anywhere beside or above them'
_KEYS = ('images', 'annotations', 'categories')
# Other tasks of COCO itself, beside instances_*.json.
_OTHER_TASKS = ('captions_', 'person_keypoints_', 'panoptic_', 'stuff_', 'image_info_')


def find(folder: Folder) -> list[Path]:
    """The annotation files."""
    found = [path for path in folder.with_suffix('.json') if not path.name.startswith(_OTHER_TASKS)]
    return [path for path in found if all(f'"{key}"' in read_text(path) for key in _KEYS)]


def read(folder: Folder, files: list[Path], names: Sequence[ClassEntry] | None) -> RawData:
    """Read all files; classes of the same name are one, in the order of the first file.

    Raises:
        LayoutError: A file is broken, an image is missing or is in two files.
    """
    contents = {file: _read_json(file) for file in files}
    classes = _classes(contents)
    images: dict[Path, RawImage] = {}
    source: dict[Path, Path] = {}
    notes = []
    for file, content in contents.items():
        records = _find_images(folder, file, content)
        objects, left_out = _objects(file, content, records.keys(), classes)
        notes += left_out
        sizes = {str(record.get('id')): (record.get('width'), record.get('height')) for record in content['images']}
        for key, path in records.items():
            if path in images:
                if source[path] == file:
                    raise LayoutError(f'{file}: {path.name} is listed under several ids; give its objects one of them')
                raise LayoutError(
                    f'{path} is in {source[path]} and in {file}; keep one annotation file for each image in the folder'
                )
            split = split_in_name(file.stem) or folder.split_of(file) or folder.split_of(path)
            width, height = sizes[key]
            size = image_size(path, file, width, height)
            _check_run_lengths(file, path, size, objects[key])
            images[path] = RawImage(path, size, split, objects[key])
            source[path] = file
    if unused := [folder.relative(path) for path in folder.images if path not in images]:
        notes.append(f'left out, in no annotation file: {shortened(unused)}')
    return RawData('COCO', tuple(classes), [images[path] for path in sorted(images)], notes)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(file))
    except ValueError as error:
        raise LayoutError(f'{file} is no intact JSON: {error}') from error
    if wrong := [key for key in _KEYS if not isinstance(content.get(key), list)]:
        raise LayoutError(f'{file}: {", ".join(wrong)} should be a list each, as in COCO')
    if not content['categories']:
        raise LayoutError(f'{file} has no categories; list them as [{{"id": 1, "name": "cat"}}, ...]')
    return content


def _classes(contents: dict[Path, dict]) -> dict[str, int]:
    """Numbers by name, without the superclasses that no object is of, such as the first of Roboflow's exports."""
    names: dict[str, int] = {}
    for file, content in contents.items():
        used = {str(record.get('category_id')) for record in content['annotations']}
        parents = {category.get('supercategory') for category in content['categories']}
        for category in content['categories']:
            name = str(category.get('name') or '').strip()
            if not name:
                raise LayoutError(f'{file}: category {category.get("id")!r} has no name')
            if str(category.get('id')) in used or name not in parents or category.get('supercategory') == name:
                names.setdefault(name, len(names))
    return names


def _find_images(folder: Folder, file: Path, content: dict) -> dict[str, Path]:
    found: dict[str, Path] = {}
    missing = []
    for record in content['images']:
        path = folder.find_image(str(record.get('file_name', '')), file)
        if path is None:
            missing.append(record.get('file_name'))
        else:
            found[str(record.get('id'))] = path
    if missing:
        raise LayoutError(
            f'{file}: {len(missing)} of {len(content["images"])} images are not in {folder.root}: '
            f'{shortened(missing)}; put them there, or take their records out of the file'
        )
    return found


def _check_run_lengths(file: Path, path: Path, size: tuple[int, int], objects: list[RawObject]) -> None:
    for item in objects:
        if isinstance(item.segmentation, dict):
            given = item.segmentation.get('size')
            fills = given == [size[1], size[0]] and run_length_bounds(item.segmentation) is not None
            if not fills:
                raise LayoutError(
                    f'{file}: run lengths of an object in {path.name} have the size {given}, or do not fill it; '
                    f'expected [height, width] of the image, {[size[1], size[0]]}'
                )


def _objects(
    file: Path, content: dict, images: Sequence[str], classes: dict[str, int]
) -> tuple[dict[str, list[RawObject]], list[str]]:
    """Objects by image, and what was left out of them."""
    names = {str(category.get('id')): str(category.get('name')).strip() for category in content['categories']}
    objects: dict[str, list[RawObject]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    for record in content['annotations']:
        image, name = str(record.get('image_id')), names.get(str(record.get('category_id')))
        if image not in images:
            left_out['image_id is of no image'] += 1
        elif name is None:
            left_out['category_id is of no category'] += 1
        elif (item := _object(record, classes[name])) is None:
            left_out['the box is missing or empty'] += 1
        elif item.segmentation is None and _is_line(record.get('segmentation')):
            left_out['the outline has no area'] += 1
        else:
            objects[image].append(item)
    return objects, [f'{file.name}: {count} objects left out: {why}' for why, count in left_out.items()]


def _object(record: dict, category: int) -> RawObject | None:
    try:
        x, y, w, h = map(float, record['bbox'])
    except (KeyError, TypeError, ValueError):
        return None
    if not (w > 0 and h > 0):
        return None
    area = record.get('area')
    area = float(area) if isinstance(area, (int, float)) and area > 0 else None
    return RawObject(
        category, (x, y, w, h), _outline(record.get('segmentation')), bool(record.get('iscrowd')), area
    )  # fmt: skip


def _is_line(segmentation: Any) -> bool:
    """Whether there are polygons of three points or more, of which :func:`_outline` has found none with an area."""
    return isinstance(segmentation, list) and any(isinstance(p, list) and len(p) >= 6 for p in segmentation)


def _outline(segmentation: Any) -> list | dict | None:
    """Polygons that have an area, or run lengths; None for a box alone."""
    if isinstance(segmentation, dict):
        return segmentation
    polygons = [polygon for polygon in segmentation or [] if isinstance(polygon, list)]
    return [polygon for polygon in polygons if has_area(polygon)] or None
