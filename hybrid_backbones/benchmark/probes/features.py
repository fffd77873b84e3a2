"""A frozen backbone's maps of all images of a split, computed once and kept on disk as float16.

In the folder given, `KEY.float16` has all maps one after the other and `KEY.json` says where each begins. KEY is a
digest of everything that the maps depend on, so that files of other weights, options, images, pipelines or versions are
never read; files whose content is not what was written are computed again.
"""

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..._files import write_whole, written_whole
from ...backbones.factory import create_backbone
from ...checkpoints.download import sha256
from ...swap import build_stages
from ..rows import digest

# Of what is stored: to be raised when the same key would give other maps.
VERSION = 1
_DTYPE = np.float16


class FeaturesError(ValueError):
    """Features that cannot be computed or stored."""


@dataclass(frozen=True)
class Subject:
    """A backbone with its weights.

    Args:
        name: One of :func:`hybrid_backbones.list_backbones`.
        checkpoint: File of its weights; None for random ones from `seed`.
        options: Over those that the name stands for.
        seed: Of random weights, which a checkpoint replaces where it has them.
    """

    name: str
    checkpoint: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def identity(self) -> dict[str, Any]:
        """What its maps depend on; weights by their content, not by the name of their file."""
        weights = self.checkpoint and sha256(Path(self.checkpoint))
        return dict(asdict(self), checkpoint=weights)

    def build(self) -> nn.Module:
        """The backbone with the maps of all its stages, in eval mode."""
        options = dict(self.options)
        stages = build_stages(self.name, options).num_stages
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return create_backbone(self.name, self.checkpoint, **options, out_indices=tuple(range(stages))).eval()


@dataclass(frozen=True)
class ImageEntry:
    """Where the maps of an image are.

    Attributes:
        image: Path of the image file.
        size: Height and width that the pipeline gave the image.
        padded: Height and width that the backbone received; the padding is at the bottom and on the right.
        starts: Index of the first value of every level's map.
        shapes: `(C, H, W)` of every level's map.
    """

    image: str
    size: tuple[int, int]
    padded: tuple[int, int]
    starts: tuple[int, ...]
    shapes: tuple[tuple[int, int, int], ...]


class Features:
    """Maps of a split, memory-mapped.

    Attributes:
        strides: Of every level, in pixels.
        dataset: The split's images and annotations through the config's test pipeline.
        entries: One for every image, in the order of the dataset.
    """

    def __init__(self, path: Path, entries: list[ImageEntry], strides: tuple[int, ...], dataset: BaseDataset) -> None:
        self.entries, self.strides, self.dataset = entries, strides, dataset
        self._values = np.memmap(path, _DTYPE, 'r')

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def channels(self) -> tuple[int, ...]:
        return tuple(channels for channels, _, _ in self.entries[0].shapes)

    @property
    def images(self) -> tuple[str, ...]:
        return tuple(entry.image for entry in self.entries)

    def level(self, index: int, level: int) -> Tensor:
        """The map of an image at a level, `(C, H, W)` in float32."""
        entry = self.entries[index]
        start, shape = entry.starts[level], entry.shapes[level]
        return torch.from_numpy(self._values[start : start + int(np.prod(shape))].astype(np.float32)).view(shape)

    def annotation(self, index: int) -> BaseDataElement:
        """What the pipeline says of an image: its label map, or its boxes and classes."""
        return self.dataset[index]['data_samples']


def compute_features(cfg: Config, split: str, subject: Subject, folder: Path) -> Features:
    """The maps of a split's images, from `folder` if they are there, else computed and stored.

    Images go through the pipeline that the config tests with, also those of the training split, and through the data
    preprocessor of its model, so that they reach the backbone as in an evaluation.

    Args:
        cfg: A detector's or segmentor's config whose data are in place.
        split: `train` or `val`.
        subject: The backbone; that of the config does not matter.
        folder: Where maps are kept.

    Raises:
        FeaturesError: There are no images, not enough disk, or maps with values that are not finite in float16.
    """
    dataset = _build_dataset(cfg, split)
    key = digest(_identity(cfg, split, dataset, subject))[:32]
    path, index = folder / f'{key}.float16', folder / f'{key}.json'
    if (stored := _read_index(path, index)) is None:
        stored = _store(_Extractor(cfg, subject), dataset, path, index)
    entries = [_entry(values) for values in stored['entries']]
    return Features(path, entries, tuple(stored['strides']), dataset)


def task_key(cfg: Config, subject: Subject) -> str:
    """Digest of everything that a probe's score depends on: what the features do, and the annotations."""
    parts = []
    for split in ('train', 'val'):
        dataset = _build_dataset(cfg, split)
        annotations = [_annotation_state(dataset.get_data_info(index)) for index in range(len(dataset))]
        parts.append([_identity(cfg, split, dataset, subject), annotations, str(dataset.metainfo['classes'])])
    return digest(parts)


def _annotation_state(information: dict[str, Any]) -> Any:
    """The boxes of an image, or the state of its label map's file."""
    if 'seg_map_path' in information and 'instances' not in information:
        return _state_of_file(Path(information['seg_map_path']))
    return str(information['instances'])


def _build_dataset(cfg: Config, split: str) -> BaseDataset:
    config = dict(cfg[f'{split}_dataloader']['dataset'])
    if 'pipeline' not in config:
        raise FeaturesError(
            f'the {split} dataset of the config is a {config.get("type")}, expected one with a pipeline of its own: '
            'give the dataset that it wraps'
        )
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        dataset = DATASETS.build(dict(config, pipeline=cfg.val_dataloader.dataset.pipeline))
    if len(dataset) < 2:
        raise FeaturesError(
            f'the {split} split has {len(dataset)} image, expected at least 2: probes train on images and compare '
            'backbones over images'
        )
    return dataset


def _image_path(dataset: BaseDataset, index: int) -> str:
    return str(dataset.get_data_info(index)['img_path'])


def _identity(cfg: Config, split: str, dataset: BaseDataset, subject: Subject) -> dict[str, Any]:
    """What maps depend on, as plain data."""
    paths = [Path(_image_path(dataset, index)) for index in range(len(dataset))]
    return dict(
        version=VERSION,
        subject=subject.identity(),
        split=split,
        pipeline=json.loads(json.dumps(cfg.val_dataloader.dataset.pipeline, default=str)),
        preprocessor=json.loads(json.dumps(cfg.model.data_preprocessor, default=str)),
        images=[[path.as_posix(), *_state_of_file(path)] for path in paths],
    )


def _state_of_file(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def _read_index(path: Path, index: Path) -> dict[str, Any] | None:
    """What is stored, or None if it is absent or not what was written."""
    if not (path.is_file() and index.is_file()):
        return None
    try:
        stored = json.loads(index.read_text(encoding='utf-8'))
        intact = stored['sha256'] == sha256(path)
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        print_log(f'{path} is damaged and is computed again', 'current', logging.WARNING)
        return None
    return stored


def _entry(values: dict[str, Any]) -> ImageEntry:
    size, padded, starts = (tuple(values[key]) for key in ('size', 'padded', 'starts'))
    return ImageEntry(values['image'], size, padded, starts, tuple(map(tuple, values['shapes'])))


class _Extractor:
    """Maps of one image after the other, as in an evaluation of the config's model with another backbone."""

    def __init__(self, cfg: Config, subject: Subject) -> None:
        self.name = subject.name
        self.backbone = subject.build()
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
            self._preprocessor = MODELS.build(cfg.model.data_preprocessor)

    @torch.inference_mode()
    def maps(self, item: dict[str, Any]) -> tuple[tuple[int, int], list[np.ndarray]]:
        """The size of the padded image, and the maps `(C, H, W)`.

        Args:
            item: One of the dataset.
        """
        batch = dict(inputs=[item['inputs']], data_samples=[item['data_samples']])
        image = self._preprocessor(batch, training=False)['inputs']
        return tuple(image.shape[2:]), [level[0].numpy().astype(_DTYPE) for level in self.backbone(image)]


def _store(extractor: _Extractor, dataset: BaseDataset, path: Path, index: Path) -> dict[str, Any]:
    """Compute the maps of all images and write them; the index last, so that maps without one do not count."""
    index.unlink(missing_ok=True)
    entries: list[ImageEntry] = []
    with written_whole(path) as temporary:
        parts = _computed(extractor, dataset, path, entries)
        with temporary.open('wb') as file:
            for part in parts:
                file.write(part.tobytes())
        checksum = sha256(temporary)
    stored = dict(
        sha256=checksum,
        strides=list(extractor.backbone.out_strides),
        entries=[asdict(entry) for entry in entries],
    )
    write_whole(index, json.dumps(stored))
    return json.loads(json.dumps(stored))


def _computed(
    extractor: _Extractor, dataset: BaseDataset, path: Path, entries: list[ImageEntry]
) -> Iterator[np.ndarray]:
    """Map after map; `entries` is filled meanwhile."""
    start = 0
    for number in range(len(dataset)):
        item = dataset[number]
        padded, maps = extractor.maps(item)
        image = _image_path(dataset, number)
        if not all(np.isfinite(values).all() for values in maps):
            raise FeaturesError(
                f'{extractor.name} has values of {image} that are not finite in float16: its weights do not fit, or '
                'their files are damaged'
            )
        if not number:
            _check_disk(path, len(dataset) * sum(values.nbytes for values in maps))
        starts = start + np.cumsum([0, *(values.size for values in maps)])
        start = int(starts[-1])
        size = tuple(item['data_samples'].img_shape[:2])
        entries.append(ImageEntry(image, size, padded, tuple(map(int, starts[:-1])), tuple(v.shape for v in maps)))
        yield from maps


def _check_disk(path: Path, needed: int) -> None:
    """Compare what the first image makes of all of them with what is free."""
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise FeaturesError(
            f'features need about {needed} bytes in {path.parent}, which has {free} free: free some, use another '
            'results folder, or fewer or smaller images'
        )
