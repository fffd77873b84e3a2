"""YOLO's text files: a line for each object, numbers as shares of width and height; Ultralytics, Darknet, exports."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from ..checks.coco_file import read_text
from .class_files import ClassEntry, find_class_file, names_in_yaml, read_yaml
from .errors import LayoutError
from .folder import Folder, image_size, note_empty, note_unlabelled
from .records import RawData, RawImage, RawObject, has_area

DESCRIPTION = 'YOLO: NAME.txt for each NAME.jpg, `class x y width height` or `class x1 y1 x2 y2 ...`, and data.yaml'
_BOX = 5  # numbers of a line
_POLYGON = 7  # at least
_TOLERANCE = 0.01  # by which rounding may put a share outside of [0, 1]


def find(folder: Folder) -> list[Path]:
    """The label files: those named after an image, of which the first that is not empty has lines of numbers."""
    stems = {path.stem for path in folder.images}
    found = [path for path in folder.with_suffix('.txt') if path.stem in stems]
    text = next(filter(None, (_first_line(path) for path in found)), '')
    return found if re.fullmatch(r'[-+.\d]+(\s+[-+.\deEnaif]+){4,}', text) else []


def _first_line(path: Path) -> str:
    try:
        return next((line.strip() for line in read_text(path).splitlines() if line.strip()), '')
    except UnicodeDecodeError:
        return ''


def read(folder: Folder, files: list[Path], names: Sequence[ClassEntry] | None) -> RawData:
    """Read labels, names and splits.

    Raises:
        LayoutError: No names, a line that cannot be read, or a class number without a name.
    """
    data_file = _data_file(folder)
    splits = _listed_splits(folder, data_file)
    labels = _labels_of_images(folder, files)
    images, unlabelled, empty = [], [], 0
    for path in folder.images:
        if (label := labels.get(path)) is None:
            unlabelled.append(path)
            continue
        size = image_size(path)
        objects = _objects(label, size)
        empty += objects.count(None)
        split = splits.get(path) or folder.split_of(path)
        images.append(RawImage(path, size, split, [item for item in objects if item]))
    notes = note_unlabelled(folder, unlabelled, len(folder.images), 'label file (an empty one says: no objects)')
    notes += note_empty(empty)
    highest = max((item.category for image in images for item in image.objects), default=-1)
    classes = _names(folder, data_file, names, highest)
    return RawData('YOLO', classes, images, notes)


def _data_file(folder: Folder) -> Path | None:
    found = [path for path in folder.with_suffix('.yaml', '.yml') if 'names' in (read_yaml(path) or {})]
    if len(found) > 1:
        raise LayoutError(f'{found[0]} and {found[1]} both name classes; keep the one that is right in the folder')
    return found[0] if found else None


def _names(folder: Folder, data_file: Path | None, names: Sequence[ClassEntry] | None, highest: int) -> tuple[str, ...]:
    entries = names or find_class_file(folder)
    if entries is None and data_file is None:
        raise LayoutError(
            f'{folder.root}: labels have the class numbers 0 to {highest}, and there is no data.yaml, classes.txt or '
            'obj.names with their names; give --classes NAME NAME ..., in the order of the numbers'
        )
    found = tuple(entry.name for entry in entries) if entries else tuple(names_in_yaml(data_file))
    if highest >= len(found):
        raise LayoutError(f'{folder.root}: labels have the class number {highest}, and there are {len(found)} names: '
                          f'{", ".join(found)}')  # fmt: skip
    return found


def _labels_of_images(folder: Folder, files: list[Path]) -> dict[Path, Path]:
    """`labels/train/a.txt` for `images/train/a.jpg`, else the file beside the image."""
    by_place = {(*folder.parts(path)[:-1], path.stem): path for path in files}
    found = {}
    for image in folder.images:
        place = (*folder.parts(image)[:-1], image.stem)
        elsewhere = tuple('labels' if part.lower() == 'images' else part for part in place)
        if label := by_place.get(elsewhere) or by_place.get(place):
            found[image] = label
    return found


def _listed_splits(folder: Folder, data_file: Path | None) -> dict[Path, str]:
    """By the entries of data.yaml, which are folders or lists of files; the same images twice are no split."""
    content = (read_yaml(data_file) if data_file else None) or {}
    splits: dict[Path, str] = {}
    for split in ('train', 'val', 'test'):
        entries = content.get(split) or []
        for entry in entries if isinstance(entries, list) else [entries]:
            images = _listed_images(folder, str(entry))
            if any(splits.get(path, split) != split for path in images):
                return {}
            splits.update(dict.fromkeys(images, split))
    return splits


def _listed_images(folder: Folder, entry: str) -> list[Path]:
    wanted = tuple(part for part in re.split(r'[\\/]', entry) if part not in ('', '.', '..'))
    if not wanted:
        return []
    if entry.endswith('.txt'):
        lists = [path for path in folder.with_suffix('.txt') if folder.parts(path)[-len(wanted) :] == wanted]
        lines = read_text(lists[0]).split('\n') if lists else []
        return [path for line in lines if line.strip() and (path := folder.find_image(line.strip(), lists[0]))]
    # An absolute path is of the machine that wrote it: its end counts.
    return [path for path in folder.images if _ends_with(folder.parts(path)[:-1], wanted)]


def _ends_with(parents: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    return any(parents[: i + 1][-len(wanted) :] == wanted[-i - 1 :] for i in range(len(parents)))


def _objects(label: Path, size: tuple[int, int]) -> list[RawObject | None]:
    try:
        lines = read_text(label).splitlines()
    except UnicodeDecodeError as error:
        raise LayoutError(f'{label} is no text: {error}') from error
    return [_object(f'{label}, line {i}', line, size) for i, line in enumerate(lines, 1) if line.strip()]


def _object(where: str, line: str, size: tuple[int, int]) -> RawObject | None:
    """The object of a line; None for one of no extent."""
    try:
        first, *shares = map(float, line.split())
    except ValueError:
        raise LayoutError(f'{where}: {line.strip()!r} has something that is no number') from None
    if len(shares) != _BOX - 1 and (len(shares) < _POLYGON - 1 or len(shares) % 2):
        raise LayoutError(
            f'{where} has {len(shares) + 1} numbers; '
            'expected `class x y width height`, or `class x1 y1 x2 y2 x3 y3 ...`'
        )
    if not first.is_integer() or first < 0:
        raise LayoutError(f'{where}: the class number is {first:g}, expected 0, 1, ...')
    if not all(math.isfinite(share) and -_TOLERANCE <= share <= 1 + _TOLERANCE for share in shares):
        raise LayoutError(
            f'{where}: {line.strip()!r} has numbers outside of 0 to 1; expected shares of width and height'
        )
    width, height = size
    points = [min(max(share, 0), 1) * (width, height)[i % 2] for i, share in enumerate(shares)]
    if len(shares) == _BOX - 1:
        x, y, w, h = points
        left, top, right, bottom = max(x - w / 2, 0), max(y - h / 2, 0), min(x + w / 2, width), min(y + h / 2, height)
    else:
        left, top, right, bottom = min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])
    outline = points if len(shares) >= _POLYGON - 1 else None
    if right <= left or bottom <= top or (outline and not has_area(outline)):
        return None
    return RawObject(int(first), (left, top, right - left, bottom - top), [outline] if outline else None)
