"""What the checks read: the datasets of a config, each with its class, files and folders, parsed once and shared."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from ..._tasks import is_segmentor
from ..roots import SPLITS, dataloaders, walk
from .coco_file import CocoFile

# How many files of a set are looked at, unless all are asked for; checking 118 000 takes minutes on network disks.
SAMPLE = 200
SEED = 0


@dataclass
class DatasetView:
    """One dataset that reads files, wherever a config nests it.

    Attributes:
        split: 'train', 'val' or 'test'.
        where: Its key in the config, such as `train_dataloader.dataset.datasets[0]`.
        config: Its config.
        scope: 'mmdet' or 'mmseg', where its type is looked up.
        data: What all datasets of the config share.
        outer: Pipelines of the datasets that it is nested in, the innermost first.
    """

    split: str
    where: str
    config: dict
    scope: str
    data: 'DataView' = field(repr=False)
    outer: tuple[Any, ...] = ()

    @cached_property
    def cls(self) -> type | None:
        """Its class; None where no such class is registered."""
        kind = self.config.get('type')
        if kind is None or inspect.isclass(kind):
            return kind
        with DATASETS.switch_scope_and_registry(self.scope) as registry:
            return registry.get(kind)

    @property
    def name(self) -> str:
        return self.cls.__name__ if self.cls else str(self.config.get('type'))

    def is_a(self, *names: str) -> bool:
        """Whether its class, or one that it inherits from, has one of these names."""
        return self.cls is not None and any(base.__name__ in names for base in self.cls.__mro__)

    @property
    def root(self) -> Path:
        return Path(self.config.get('data_root') or '')

    @property
    def folders(self) -> dict[str, Path]:
        """Folders of `data_prefix`, below `data_root`, by key."""
        return {key: self.root / str(prefix) for key, prefix in (self.config.get('data_prefix') or {}).items()}

    @property
    def ann_file(self) -> Path | None:
        name = self.config.get('ann_file')
        return self.root / name if name and isinstance(name, (str, Path)) else None

    @property
    def is_coco(self) -> bool:
        """Whether it reads objects from a JSON file of COCO's layout."""
        return (
            self.is_a('CocoDataset')
            and not self.is_a('CocoPanopticDataset')
            and self.ann_file is not None
            and self.ann_file.suffix == '.json'
        )

    @property
    def is_segmentation(self) -> bool:
        """Whether its truth are label maps."""
        return self.is_a('BaseSegDataset', 'BaseCDDataset') and not self.is_a('NYUDataset')

    @property
    def only_predicts(self) -> bool:
        """Whether its predictions are written for a server that has the truth."""
        evaluators = self.data.evaluators(self.split)
        return self.split == 'test' and bool(evaluators) and all(e.get('format_only') for e in evaluators)

    @property
    def is_tracking(self) -> bool:
        """Whether its classes are those of tracks, of which detectors know one."""
        return self.is_a('MOTChallengeDataset', 'ReIDDataset')

    @cached_property
    def coco(self) -> CocoFile | None:
        """Its annotation file; None where it reads none of COCO's layout, or the file is absent."""
        return self.data.coco_file(self.ann_file) if self.is_coco and self.ann_file.is_file() else None

    def file_name(self, image: dict) -> Any:
        """Where the dataset class looks for an image of its annotation file, below its image folder."""
        if self.is_a('LVISV1Dataset'):
            return str(image['coco_url']).split('images.cocodataset.org/')[-1] if 'coco_url' in image else None
        name = image.get('file_name')
        if self.is_a('LVISV05Dataset') and str(name).startswith('COCO'):
            return name[-16:]
        return '/'.join(name.split('/')[-2:]) if self.is_a('Objects365V2Dataset') and isinstance(name, str) else name

    @cached_property
    def built(self) -> Any:
        """The dataset itself without its files read, or the exception with which it refuses to be built."""
        config = {**self.config, 'pipeline': [], 'lazy_init': True}
        try:
            with DefaultScope.overwrite_default_scope(self.scope):
                return DATASETS.build(config)
        except Exception as error:  # whatever a dataset of any package does
            return error

    @cached_property
    def records(self) -> list[dict] | Exception:
        """What the dataset itself lists, or the exception with which it refuses."""
        if isinstance(self.built, Exception):
            return self.built
        try:
            return self.built.load_data_list()
        except Exception as error:  # whatever a dataset of any package does
            return error

    @cached_property
    def meta(self) -> dict:
        """Its meta information: the class's own, overridden by the config's."""
        if isinstance(self.built, Exception):
            own = dict(getattr(self.cls, 'METAINFO', {}) or {})
            return own | dict(self.config.get('metainfo') or {})
        return self.built.metainfo

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of its classes; None where it has none, or they are no sequence of names."""
        classes = self.meta.get('classes')
        return None if classes is None or isinstance(classes, str) else tuple(classes)

    def transforms(self) -> Iterator[dict]:
        """Transforms of its pipeline, those inside others too."""
        found: list[dict] = []
        walk(self.config.get('pipeline'), lambda node: found.append(node) if 'type' in node else None)
        yield from found

    @property
    def uses_masks(self) -> bool:
        """Whether its pipeline reads masks of objects."""
        return any(transform.get('with_mask') for transform in self.transforms())

    def sample(self, length: int, most: int | None = None) -> np.ndarray:
        """Indices of a seeded sample of at most `most` (`SAMPLE`); all where the whole set is to be checked."""
        most = SAMPLE if most is None else most
        if self.data.full or length <= most:
            return np.arange(length)
        return np.sort(np.random.default_rng(SEED).choice(length, most, replace=False))


class DataView:
    """A config's datasets, evaluators and annotation files.

    Args:
        cfg: Config of mmdet or mmseg.
        splits: Data loaders to look at.
        full: Whether all files are looked at, not a sample.
        progress: Wraps an iterable of files and shows how far it is.
    """

    def __init__(
        self,
        cfg: Config,
        splits: tuple[str, ...] = SPLITS,
        full: bool = False,
        progress: Callable[..., Any] = lambda items, **kwargs: items,
    ) -> None:
        self.cfg, self.splits, self.full, self.progress = cfg, splits, full, progress
        self.scope = 'mmseg' if is_segmentor(cfg) else 'mmdet'
        self._files: dict[Path, CocoFile] = {}

    @cached_property
    def datasets(self) -> list[DatasetView]:
        found = []
        for split, loader in dataloaders(self.cfg).items():
            if split in self.splits:
                where = f'{split}_dataloader.dataset'
                found += [
                    DatasetView(split, key, node, self.scope, self, outer)
                    for key, node, outer in leaves(loader.get('dataset'), where)
                ]
        return found

    def evaluators(self, split: str) -> list[dict]:
        value = self.cfg.get(f'{split}_evaluator')
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        return [evaluator for evaluator in values if isinstance(evaluator, dict)]

    def evaluates_masks(self, split: str) -> bool:
        return any('segm' in _as_list(evaluator.get('metric')) for evaluator in self.evaluators(split))

    def coco_files(self, usable: bool = True) -> Iterator[tuple[DatasetView, CocoFile]]:
        """Datasets with annotation files of COCO's layout; `usable`: those that list images and objects.

        Files that evaluators alone read are among them, as those of the dataset that is measured.
        """
        for dataset in [*self.datasets, *self._of_evaluators()]:
            file = dataset.coco
            if file is not None and not (usable and (file.error or not file.images or not file.num_annotations)):
                yield dataset, file

    def _of_evaluators(self) -> Iterator[DatasetView]:
        """A dataset as it would be with the annotation file of its evaluator, where that is another one."""
        for split in self.splits:
            own = [dataset for dataset in self.datasets if dataset.split == split and dataset.is_coco]
            for evaluator in self.evaluators(split) if own else ():
                name = evaluator.get('ann_file')
                if isinstance(name, str) and all(d.ann_file.resolve() != Path(name).resolve() for d in own):
                    config = {**own[0].config, 'data_root': '', 'ann_file': name}
                    yield replace(own[0], where=f'{split}_evaluator', config=config)

    def coco_file(self, path: Path) -> CocoFile:
        key = path.resolve()
        if key not in self._files:
            self._files[key] = CocoFile(path)
        return self._files[key]


def leaves(node: Any, where: str, outer: tuple[Any, ...] = ()) -> Iterator[tuple[str, dict, tuple[Any, ...]]]:
    """Datasets that read files, with their keys and the pipelines of the wrappers around them, the innermost first.

    Wrappers (Concat, Repeat, ClassBalanced, MultiImageMix) are opened.
    """
    if not isinstance(node, dict):
        return
    around = (node.get('pipeline'), *outer)
    if isinstance(node.get('datasets'), (list, tuple)):
        for i, child in enumerate(node['datasets']):
            yield from leaves(child, f'{where}.datasets[{i}]', around)
    elif isinstance(node.get('dataset'), dict):
        yield from leaves(node['dataset'], f'{where}.dataset', around)
    elif node:
        yield where, node, outer


def reads_text(model: dict) -> bool:
    """Whether a model is given its classes as text, so that none are fixed by its heads."""
    return any(key in model for key in ('language_model', 'text_encoder', 'clip_text_encoder'))


def type_name(node: dict) -> str:
    """Name of a config's `type`, without its scope; configs in pure Python give the class itself."""
    kind = node.get('type')
    return kind.__name__ if inspect.isclass(kind) else str(kind).rsplit('.', 1)[-1]


def _as_list(value: Any) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]
