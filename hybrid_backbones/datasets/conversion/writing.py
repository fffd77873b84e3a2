"""The layouts of COCO and ADE20K, as docs/data.md has them, written of what the readers give."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as mask_utils

from ..._files import write_whole
from .errors import LayoutError
from .label_coding import IGNORED
from .records import RawData, RawImage, RawObject

COCO_SPLITS = dict(train='train2017', val='val2017', test='test2017')
ADE_SPLITS = dict(train='training', val='validation', test='test')
BACKGROUND = 'background'


def link(source: Path, target: Path) -> None:
    """The same file under another name: a hard link, else a symbolic one, else a copy."""
    source = source.resolve()
    for place in (os.link, os.symlink, shutil.copy2):
        try:
            place(source, target)
        except OSError:
            if place is shutil.copy2:
                raise
        else:
            return


def write_detection(data: RawData, out: Path) -> None:
    """`annotations/instances_*2017.json` and the images in `*2017`."""
    names = _names(data.images)
    for split, folder in COCO_SPLITS.items():
        images = [image for image in data.images if image.split == split]
        if not images:
            continue
        (out / folder).mkdir(parents=True)
        for image in images:
            link(image.path, out / folder / (names[image.path] + image.path.suffix))
        content = _annotations(images, names, data.classes, data.with_masks)
        write_whole(out / 'annotations' / f'instances_{folder}.json', json.dumps(content, ensure_ascii=False))


def write_segmentation(data: RawData, out: Path) -> str:
    """`images/*` and `annotations/*`: label maps of class numbers from 0, 255 for what is left out.

    Returns:
        The suffix of all images, which is that of most: mmseg takes one, and decoders go by the content.
    """
    names = _names(data.images)
    (suffix, _), *_ = Counter(image.path.suffix.lower() for image in data.images).most_common()
    for image in data.images:
        image_folder, map_folder = (out / kind / ADE_SPLITS[image.split] for kind in ('images', 'annotations'))
        for folder in (image_folder, map_folder):
            folder.mkdir(parents=True, exist_ok=True)
        link(image.path, image_folder / (names[image.path] + suffix))
        _write_map(data, image, map_folder / f'{names[image.path]}.png')
    return suffix


def _write_map(data: RawData, image: RawImage, target: Path) -> None:
    if image.label_map is None:
        labels = draw_objects(image)
    elif image.keeps_label_map:
        link(image.label_map, target)
        return
    else:
        labels = data.coding.encode(image.label_map)
    Image.fromarray(labels).save(target)


def draw_objects(image: RawImage) -> np.ndarray:
    """(H, W) uint8 label map of an image's objects on 0, small ones over large ones, 255 for ignored ones."""
    width, height = image.size
    labels = np.zeros((height, width), np.uint8)
    for item in sorted(image.objects, key=lambda item: -item.box[2] * item.box[3]):
        inside = mask_utils.decode(_run_lengths(item, image.size)).astype(bool)
        labels[inside] = IGNORED if item.ignored else item.category + 1
    return labels


def _run_lengths(item: RawObject, size: tuple[int, int]) -> dict:
    width, height = size
    if isinstance(item.segmentation, list):
        return mask_utils.merge(mask_utils.frPyObjects(item.segmentation, height, width))
    if isinstance(item.segmentation['counts'], list):
        return mask_utils.frPyObjects(item.segmentation, height, width)
    return item.segmentation


def _names(images: list[RawImage]) -> dict[Path, str]:
    """A name without suffix for each image: its own, and where two have the same, with their folders in front."""
    stems = Counter(image.path.stem for image in images)
    shared = Path(os.path.commonpath([image.path.parent for image in images]))
    names = {}
    for image in images:
        relative = image.path.relative_to(shared).with_suffix('')
        names[image.path] = image.path.stem if stems[image.path.stem] == 1 else '_'.join(relative.parts)
    if double := [name for name, count in Counter(names.values()).items() if count > 1]:
        raise LayoutError(f'several images are called {double[0]}; rename all but one, and what belongs to them')
    return names


def _annotations(images: list[RawImage], names: dict[Path, str], classes: tuple[str, ...], masks: bool) -> dict:
    records, objects = [], []
    for number, image in enumerate(images, 1):
        file_name = names[image.path] + image.path.suffix
        records.append(dict(id=number, file_name=file_name, width=image.size[0], height=image.size[1]))
        for item in image.objects:
            record = dict(
                id=len(objects) + 1,
                image_id=number,
                category_id=item.category + 1,
                bbox=[round(value, 3) for value in item.box],
                area=_area(item, image.size),
                iscrowd=int(item.ignored),
            )
            objects.append(record | dict(segmentation=item.segmentation) if masks and item.segmentation else record)
    categories = [dict(id=i, name=name) for i, name in enumerate(classes, 1)]
    return dict(images=records, annotations=objects, categories=categories)


def _area(item: RawObject, size: tuple[int, int]) -> float:
    if item.area is not None:
        return item.area
    outlined = float(mask_utils.area(_run_lengths(item, size))) if item.segmentation else 0
    return outlined or round(item.box[2] * item.box[3], 3)
