"""The order of classes that a checkpoint was trained with, for the datasets that it is used on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import CheckpointLoader

from .findings import NOTE, Finding
from .view import DataView


def adopt_order(cfg: Config) -> list[Finding]:
    """Give datasets the class order of the checkpoint that the config loads, where only the order differs.

    The outputs of its heads have the order of `dataset_meta` within it, whatever order the config lists.

    Args:
        cfg: The config; `metainfo` of its datasets is changed.

    Returns:
        What was changed, as notes.
    """
    datasets = [dataset for dataset in DataView(cfg).datasets if dataset.classes]
    if not datasets or not isinstance(cfg.get('load_from'), str) or not Path(cfg.load_from).is_file():
        return []
    order = _trained_classes(cfg.load_from)
    if len(set(order)) < len(order):
        return []
    notes = []
    for dataset in datasets:
        classes = dataset.classes
        if classes == order or sorted(map(str, classes)) != sorted(map(str, order)) or dataset.is_segmentation:
            continue
        dataset.config['metainfo'] = _reordered(dataset.meta, dataset.config.get('metainfo') or {}, order)
        notes.append(
            Finding(
                NOTE,
                'checkpoint-order',
                f'{dataset.where}.metainfo',
                f'classes are {classes}, those of {cfg.load_from} {order}',
                key='classes',
                consequence='The order of the checkpoint is used, for labels, names and colours.',
            )
        )
    return notes


def _trained_classes(path: str) -> tuple[str, ...]:
    """Classes that a checkpoint says it was trained with; () where it says nothing."""
    try:
        content = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    except Exception:  # loading it into the model will say what is wrong with it
        return ()
    meta = content.get('meta') if isinstance(content, dict) else None
    named = (meta.get('dataset_meta') or {}).get('classes') if isinstance(meta, dict) else None
    return tuple(named) if isinstance(named, (list, tuple)) else ()


def _reordered(meta: dict, given: dict, order: Sequence[str]) -> dict[str, Any]:
    """`metainfo` of a config with classes in `order`, and the palette with them."""
    classes, palette = list(meta['classes']), meta.get('palette')
    changed = {**given, 'classes': tuple(order)}
    if isinstance(palette, (list, tuple)) and len(palette) == len(classes):
        changed['palette'] = [palette[classes.index(name)] for name in order]
    return changed
