"""Predictions of a detector or segmentor, a PNG for every image, drawn by mmdet's and mmseg's visualizers."""

import inspect
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.registry import DATASETS, VISUALIZERS, DefaultScope
from torch import nn

from .._files import written_whole
from .._tasks import is_segmentor
from ..datasets.checks import check_data
from ..datasets.roots import walk
from ..engine.config import load_config
from ..engine.trained_model import load_trained, locate_model
from .images import list_images

# Default limit for a dataset: thousands of images would take hours.
NUM_IMAGES = 16


def save_predictions(
    config: str | Path,
    checkpoint: str | Path,
    out: str | Path,
    images: str | Path | None = None,
    num_images: int | None = None,
    score_thr: float = 0.3,
    data_root: str | None = None,
    options: dict[str, Any] | None = None,
) -> list[Path]:
    """Draw predictions beside the truth for the config's test split, or predictions alone for a folder of images.

    Args:
        config: Config of ours, mmdet or mmseg.
        checkpoint: Weights of that config's model.
        out: Folder of the PNGs, which are named as the images.
        images: Folder of images, or one image; None for the config's dataset.
        num_images: How many, at most; None for all of a folder, and the first `NUM_IMAGES` of a dataset.
        score_thr: Detections at or below it are not drawn.
        data_root: Folder of the data, in place of the config's.
        options: Dotted keys and values over those of the config.

    Returns:
        The files written.

    Raises:
        DataError: Data are missing or incomplete, or do not fit the config: a ValueError with all findings.
        FileNotFoundError: Config, checkpoint or images are missing.
        OSError: A file is not an image.
        ValueError: The checkpoint is of another model, or `num_images` below one.
    """
    checkpoint = locate_model(checkpoint)
    if num_images is not None and num_images < 1:
        raise ValueError(f'num_images={num_images}: expected at least one')
    paths = None if images is None else list_images(images)[:num_images]
    cfg = load_config(config, data_root=data_root, options=options)
    if paths is None:
        check_data(cfg, ('test',))
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        model = load_trained(cfg, checkpoint)[0].to(get_device())
        dataset = _build_dataset(cfg, lazy=paths is not None)
        samples = _of_files(cfg, paths) if paths is not None else _of_dataset(dataset, num_images or NUM_IMAGES)
        visualizer = _visualizer(cfg, dataset.metainfo)
        # mmseg's has no threshold.
        drawn = dict(draw_gt=paths is None) | (dict(pred_score_thr=score_thr) if _detects(visualizer) else {})
        return _draw(model, samples, visualizer, Path(out), drawn)


def _build_dataset(cfg: Config, lazy: bool) -> Any:
    """The test dataset; `lazy` for its classes alone, without reading its files."""
    node = cfg.test_dataloader.dataset
    if lazy:
        nodes: list[dict] = []
        walk(node, lambda part: nodes.append(part) if part.get('pipeline') else None)
        node = dict(nodes[0], lazy_init=True)
    return DATASETS.build(node)


def _of_dataset(dataset: Any, num_images: int) -> tuple[list[Path], Iterator[dict]]:
    """Image files of the dataset's first samples, and the samples."""
    indices = range(min(num_images, len(dataset)))
    paths = [Path(dataset.get_data_info(i)['img_path']) for i in indices]
    return paths, (dataset[i] for i in indices)


def _of_files(cfg: Config, paths: Sequence[Path]) -> tuple[Sequence[Path], Iterator[dict]]:
    """Image files, and what the test pipeline makes of them without annotations."""
    pipelines: list[list[dict]] = []
    walk(cfg.test_dataloader.dataset, lambda part: pipelines.append(part['pipeline']) if 'pipeline' in part else None)
    # The loading transforms are wrapped, see load_config.
    steps = [step for step in pipelines[0] if not step.get('transform', step)['type'].endswith('Annotations')]
    run = Compose(steps)
    return paths, (run(dict(img_path=str(path), img_id=i)) for i, path in enumerate(paths))


def _visualizer(cfg: Config, metainfo: dict) -> Any:
    default = 'SegLocalVisualizer' if is_segmentor(cfg) else 'DetLocalVisualizer'
    options = dict(cfg.get('visualizer') or dict(type=default))
    # The visualizer only draws; it keeps no log.
    for key in ('vis_backends', 'save_dir', 'name', '_scope_'):
        options.pop(key, None)
    with VISUALIZERS.switch_scope_and_registry(None) as registry:
        kind = registry.get(options.pop('type'))
    # Not built by the registry, which would make it the one that hooks of later runs draw with.
    visualizer = kind(name='predictions', **options)
    visualizer.dataset_meta = metainfo
    return visualizer


def _detects(visualizer: Any) -> bool:
    return 'pred_score_thr' in inspect.signature(visualizer.add_datasample).parameters


def _draw(
    model: nn.Module, samples: tuple[Sequence[Path], Iterator[dict]], visualizer: Any, out: Path, drawn: dict[str, Any]
) -> list[Path]:
    from mmcv import imread

    paths, inputs = samples
    written = png_names(paths, out)
    for i, (data, target) in enumerate(zip(inputs, written, strict=True)):
        with torch.no_grad():
            result = model.test_step(pseudo_collate([data]))[0].cpu()
        image = imread(result.img_path, channel_order='rgb')
        with written_whole(target) as path:
            visualizer.add_datasample(target.stem, image, result, out_file=str(path), **drawn)
        print_log(f'{i + 1} of {len(written)}: {target}', 'current')
    return written


def png_names(paths: Sequence[Path], out: Path) -> list[Path]:
    """A PNG below `out` for every image, named and sorted into folders as the images are; no two alike."""
    if not paths:
        return []
    common = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    relative = [path.absolute().relative_to(common) for path in paths]
    alike = Counter(path.with_suffix('') for path in relative)
    return [
        out / (path.with_suffix('.png') if alike[path.with_suffix('')] == 1 else path.with_name(f'{path.name}.png'))
        for path in relative
    ]
