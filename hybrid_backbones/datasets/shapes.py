"""The embedded dataset `shapes`: scenes of coloured shapes on disk, in the layouts of COCO and of ADE20K.

One folder holds both layouts, so that it can be the `data_root` of a detector and of a segmentor alike:

    annotations/instances_{train,val}2017.json   COCO: polygons and run lengths, boxes, areas, crowds
    {train,val}2017/000000000001.jpg
    annotations/{training,validation}/*.png      ADE20K: 0 other, then the shapes, then background
    images/{training,validation}/*.jpg           the same images

mmdet's and mmseg's own dataset classes, pipelines and metrics read it as they read the real data.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .._files import cache_folder, write_whole
from .masks import encode_mask
from .scenes import BACKGROUND, CLASSES, Scene, draw_scene

# Classes of the label map in the order of its values 1, 2, ...; 0 is other, as in ADE20K.
SEGMENTATION_CLASSES = (*CLASSES, BACKGROUND)

# Counts up whenever the content changes, so that older caches are rewritten.
_VERSION = 1
_MANIFEST = 'shapes.json'
_SPLITS = dict(train=('train2017', 'training'), val=('val2017', 'validation'))


def default_root() -> Path:
    """Cache folder: `$HYBRID_BACKBONES_CACHE/shapes`, else below `$XDG_CACHE_HOME`, else below `~/.cache`."""
    return cache_folder() / 'shapes'


def ensure_shapes(
    root: str | Path | None = None, num_train: int = 320, num_val: int = 64, size: int = 160, seed: int = 0
) -> Path:
    """Write the dataset unless it is there, whole and with the same options; return its folder.

    A missing, shortened or altered file is noticed (by its hash) and written anew. Several processes may call this at
    once: each file appears whole, and all of them write the same. A process that dies halfway leaves a folder that the
    next call completes.

    Args:
        root: Folder of the dataset; None for :func:`default_root`.
        num_train: Images of the training split.
        num_val: Images of the validation split.
        size: Side of the square images in pixels, at least 64.
        seed: Another seed, other scenes.

    Raises:
        ValueError: A number is out of range.
        FileExistsError: `root` holds something else, which is left alone.
    """
    options = dict(version=_VERSION, num_train=num_train, num_val=num_val, size=size, seed=seed)
    if min(num_train, num_val) < 1 or size < 64 or seed < 0:
        raise ValueError(f'shapes: need num_train, num_val >= 1, size >= 64 and seed >= 0, got {options}')
    folder = default_root() if root is None else Path(root)
    manifest = _read_manifest(folder)
    if manifest.get('options') == options and _is_whole(folder, manifest['files']):
        return folder
    # Hidden: what another writer is about to put there.
    others = folder.exists() and any(not path.name.startswith('.') for path in folder.iterdir())
    if root is not None and not (folder / _MANIFEST).exists() and others:
        raise FileExistsError(
            f'{folder} is not empty and was not written by ensure_shapes (it has no {_MANIFEST}): '
            'name a new or empty folder for the dataset'
        )
    files = dict(_render(num_train, num_val, size, seed))
    hashes = {name: _hash(content) for name, content in files.items()}
    # The manifest goes first: from here on the folder is known to be ours, and incomplete until all hashes agree.
    write_whole(folder / _MANIFEST, json.dumps(dict(options=options, files=hashes)).encode())
    for name, content in files.items():
        path = folder / name
        if not path.is_file() or _hash(path.read_bytes()) != hashes[name]:
            write_whole(path, content)
    for name in manifest.get('files', {}).keys() - files.keys():
        (folder / name).unlink(missing_ok=True)
    return folder


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The options and hashes that the folder was written with; empty if there are none to be read."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding='utf-8'))
        return manifest if isinstance(manifest['files'], dict) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _is_whole(folder: Path, hashes: dict[str, str]) -> bool:
    try:
        return all(_hash((folder / name).read_bytes()) == value for name, value in hashes.items())
    except OSError:
        return False


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _render(num_train: int, num_val: int, size: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Every file of the dataset: its name below the root, and its content."""
    for number, (split, (coco_folder, ade_folder)) in enumerate(_SPLITS.items()):
        images, annotations = [], []
        for index in range(num_train if split == 'train' else num_val):
            scene = draw_scene(size, seed, number, index)
            stem = f'{index + 1:012d}'
            photo = _encode('.jpg', scene.image, [cv2.IMWRITE_JPEG_QUALITY, 95])
            yield f'{coco_folder}/{stem}.jpg', photo
            yield f'images/{ade_folder}/{stem}.jpg', photo
            yield f'annotations/{ade_folder}/{stem}.png', _encode('.png', scene.labels)
            images.append(dict(id=index + 1, file_name=f'{stem}.jpg', width=size, height=size))
            annotations += _annotations(scene, index + 1, first_id=len(annotations) + 1)
        coco = dict(
            info=dict(description='shapes, drawn by hybrid_backbones', version=str(_VERSION)),
            licenses=[],
            images=images,
            annotations=annotations,
            categories=[dict(id=i + 1, name=name, supercategory='shape') for i, name in enumerate(CLASSES)],
        )
        yield f'annotations/instances_{coco_folder}.json', json.dumps(coco).encode()


def _encode(suffix: str, pixels: np.ndarray, options: list[int] | None = None) -> bytes:
    return cv2.imencode(suffix, pixels, options or [])[1].tobytes()


def _annotations(scene: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    """COCO annotations of a scene's objects; boxes are `[x, y, width, height]` around what can be seen."""
    annotations = []
    for annotation_id, instance in enumerate(scene.instances, first_id):
        rows, columns = np.flatnonzero(instance.mask.any(1)), np.flatnonzero(instance.mask.any(0))
        x, y = int(columns[0]), int(rows[0])
        annotations.append(
            dict(
                id=annotation_id,
                image_id=image_id,
                category_id=instance.label + 1,
                segmentation=encode_mask(instance.mask, instance.crowd),
                area=int(instance.mask.sum()),
                bbox=[x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
                iscrowd=int(instance.crowd),
            )
        )
    return annotations
