"""Folders of images and label maps: VOC's SegmentationClass, CVAT's and Roboflow's exports, CamVid's, mmseg's."""

import re
from collections.abc import Sequence
from pathlib import Path

from .class_files import ClassEntry, find_class_file
from .errors import LayoutError, shortened
from .folder import Folder, image_size, note_unlabelled
from .label_coding import choose_coding, count_pixels
from .records import RawData, RawImage
from .voc import image_sets

DESCRIPTION = (
    'images and label maps: NAME.png for each NAME.jpg in a folder called masks, labels, annotations, '
    'SegmentationClass or alike, or NAME_mask.png beside it'
)
_FOLDER = re.compile(r'(mask|label|annot|segmentationclass|(^|_)(gt|seg|ann)(_|$))', re.IGNORECASE)
_SUFFIX = re.compile(r'[_-](masks?|labels?|labelids|gt|gtfine_labelids|seg|segmentation|l)$', re.IGNORECASE)
_MAP_SUFFIXES = ('.png', '.bmp', '.tif', '.tiff')


def find(folder: Folder) -> list[Path]:
    """The label maps that belong to an image."""
    return [label_map for label_map in _pairs(folder).values() if label_map]


def _pairs(folder: Folder) -> dict[Path, Path | None]:
    """The label map of each image."""
    maps: dict[tuple[str | None, str], Path] = {}
    images = []
    for path in folder.images:
        parents = folder.parts(path)[:-1]
        if any(re.search('SegmentationObject|instance', part, re.IGNORECASE) for part in parents):
            continue  # objects, not classes
        named = _SUFFIX.search(path.stem)
        if path.suffix.lower() in _MAP_SUFFIXES and (named or any(_FOLDER.search(part) for part in parents)):
            key = folder.split_of(path), path.stem[: named.start()] if named else path.stem
            if key in maps:
                raise LayoutError(f'{maps[key]} and {path} both seem to be the label map of {key[1]}; keep one')
            maps[key] = path
        else:
            images.append(path)
    return {path: maps.get((folder.split_of(path), _image_stem(path))) for path in images}


def _image_stem(path: Path) -> str:
    return re.sub('_leftImg8bit$', '', path.stem)  # Cityscapes


def read(folder: Folder, files: list[Path], names: Sequence[ClassEntry] | None) -> RawData:
    """Read sizes, splits, and which classes each map has.

    Raises:
        LayoutError: Classes are unknown or do not fit the maps, or a map is not of its image's size.
    """
    pairs = _pairs(folder)
    pixels = {path: count_pixels(path) for path in files}
    coding, classes = choose_coding(folder.root, list(pixels.values()), names or find_class_file(folder))
    listed = image_sets(folder)
    images, wrong = [], []
    for path, label_map in pairs.items():
        if label_map is None:
            continue
        size, found = image_size(path), pixels[label_map]
        if found.size != size:
            wrong.append(f'{folder.relative(label_map)} {found.size} (image {size})')
        split = listed.get(path.stem) or folder.split_of(path)
        keeps = coding.keeps(label_map, found)
        images.append(RawImage(path, size, split, [], label_map, keeps, coding.amounts(found)))
    if wrong:
        raise LayoutError(f'{folder.root}: label maps should be of the size of their images: {shortened(wrong)}')
    unlabelled = [path for path, label_map in pairs.items() if label_map is None]
    notes = note_unlabelled(folder, unlabelled, len(pairs), 'label map')
    never = [name for i, name in enumerate(classes) if not any(i in image.amounts for image in images)]
    notes += [f'in no label map: {shortened(never)}'] if never else []
    return RawData('images and label maps', classes, images, notes, coding)
