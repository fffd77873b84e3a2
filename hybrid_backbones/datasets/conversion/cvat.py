"""CVAT's own XML, "CVAT for images 1.1": boxes, polygons and masks of all images in one file."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from ..masks import encode_runs
from .class_files import ClassEntry
from .errors import LayoutError
from .folder import Folder, image_size
from .records import RawData, RawImage, RawObject, has_area
from .voc import has_root, parse_xml

DESCRIPTION = 'CVAT: annotations.xml of "CVAT for images 1.1"'


def find(folder: Folder) -> list[Path]:
    """The annotation files."""
    return [path for path in folder.with_suffix('.xml') if has_root(path, 'annotations')]


def read(folder: Folder, files: list[Path], names: Sequence[ClassEntry] | None) -> RawData:
    """Read all files; classes as the task lists them, then others that occur.

    Raises:
        LayoutError: A file is broken or of a video, or an image is missing.
    """
    classes: dict[str, int] = {}
    images: dict[Path, RawImage] = {}
    left_out: Counter[str] = Counter()
    for file in files:
        root = parse_xml(file)
        if root.find('track') is not None:
            raise LayoutError(f'{file} has the tracks of a video; export the task as "CVAT for images 1.1" or COCO')
        for label in root.iterfind('meta//labels/label/name'):
            classes.setdefault((label.text or '').strip(), len(classes))
        for record in root.iterfind('image'):
            path = folder.find_image(record.get('name', ''), file)
            if path is None:
                raise LayoutError(f'{file}: {record.get("name")} is not in {folder.root}; export with images')
            split = record.get('subset', '').lower()
            split = split if split in ('train', 'val', 'test') else folder.split_of(path)
            size = image_size(path, file, record.get('width'), record.get('height'))
            images[path] = RawImage(path, size, split, _objects(file, record, size, classes, left_out))
    notes = [f'{count} x {what} left out: it has no area' for what, count in left_out.items()]
    return RawData('CVAT', tuple(classes), [images[path] for path in sorted(images)], notes)


def _objects(
    file: Path, record: Element, size: tuple[int, int], classes: dict[str, int], left_out: Counter[str]
) -> list[RawObject]:
    objects = []
    for shape in record:
        try:
            item = _object(shape, size, classes)
        except (KeyError, ValueError) as error:
            raise LayoutError(f'{file}: a {shape.tag} of {record.get("name")} is incomplete ({error})') from error
        if item is None:
            left_out[shape.tag] += 1
        else:
            objects.append(item)
    return objects


def _object(shape: Element, size: tuple[int, int], classes: dict[str, int]) -> RawObject | None:
    """A box, polygon or mask as an object; None for what has no area, such as points and lines."""
    if shape.tag not in ('box', 'polygon', 'mask'):
        return None
    outline: list | dict | None = None
    if shape.tag == 'box' and not float(shape.get('rotation', 0)):
        corners = [float(shape.attrib[key]) for key in ('xtl', 'ytl', 'xbr', 'ybr')]
        left, top, right, bottom = corners
    elif shape.tag == 'mask':
        outline = _decode(shape, size)
        left, top = float(shape.attrib['left']), float(shape.attrib['top'])
        right, bottom = left + float(shape.attrib['width']), top + float(shape.attrib['height'])
    else:
        points = _points(shape) if shape.tag == 'polygon' else _turned(shape)
        outline = [points.ravel().tolist()]
        if not has_area(outline[0]):
            return None
        (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1])
    if right <= left or bottom <= top:
        return None
    category = classes.setdefault(shape.attrib['label'].strip(), len(classes))
    return RawObject(category, (left, top, right - left, bottom - top), outline)


def _points(shape: Element) -> np.ndarray:
    """(N, 2) corners of a polygon."""
    return np.array([[float(value) for value in point.split(',')] for point in shape.attrib['points'].split(';')])


def _turned(shape: Element) -> np.ndarray:
    """(4, 2) corners of a box that is turned by `rotation` degrees, clockwise on screen, around its centre."""
    left, top, right, bottom = (float(shape.attrib[key]) for key in ('xtl', 'ytl', 'xbr', 'ybr'))
    angle = np.deg2rad(float(shape.attrib['rotation']))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    half = np.array([right - left, bottom - top]) / 2
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    return corners @ turn + [(left + right) / 2, (top + bottom) / 2]


def _decode(shape: Element, size: tuple[int, int]) -> dict:
    """COCO's run lengths of a mask, which CVAT writes row by row within its box."""
    left, top, width, height = (int(float(shape.attrib[key])) for key in ('left', 'top', 'width', 'height'))
    runs = [int(value) for value in shape.attrib['rle'].split(',')]
    values = np.repeat(np.arange(len(runs)) % 2, runs).astype(bool)
    mask = np.zeros((size[1], size[0]), bool)
    mask[top : top + height, left : left + width] = values.reshape(height, width)
    return encode_runs(mask)
