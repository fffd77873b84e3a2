"""Check that the data of a config exist, before anything slow starts."""

import json
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .._tasks import is_segmentor
from .roots import SPLITS, data_roots, dataloaders, walk

# At most this many files of a set are checked, spread evenly: 118 000 would take minutes on network disks.
_SAMPLE = 200

_COCO = """COCO 2017 is expected as
  {root}/
    annotations/instances_train2017.json, instances_val2017.json
    train2017/*.jpg
    val2017/*.jpg"""
_ADE20K = """ADE20K is expected as
  {root}/
    images/training/*.jpg, images/validation/*.jpg
    annotations/training/*.png, annotations/validation/*.png"""


class DataError(FileNotFoundError):
    """Data that a config needs is missing or incomplete."""


def check_data(cfg: Config, splits: tuple[str, ...] = SPLITS) -> None:
    """Check the annotation files and image folders of a config's datasets.

    Args:
        cfg: Config of mmdet or mmseg.
        splits: Data loaders to look at.

    Raises:
        DataError: One error for everything that is missing, with the expected layout and what to do.
    """
    problems = missing_data(cfg, splits)
    if not problems:
        return
    root = next(iter(data_roots(cfg)), 'data')
    missing = '\n'.join(f'  {problem}' for problem in problems)
    example = f'configs/{"upernet" if is_segmentor(cfg) else "maskrcnn"}_conv2former_n_shapes.py'
    raise DataError(
        f'the data of this config is missing or incomplete:\n{missing}\n{expected_layout(cfg, root)}\n'
        f'If it lies elsewhere, add --data-root DIR (or a link: ln -s DIR {root}).\n'
        f'To see everything run without downloads: python tools/train.py {example}'
    )


def missing_data(cfg: Config, splits: tuple[str, ...] = SPLITS) -> list[str]:
    """Every annotation file, image folder and image that a config names and that is not there, one line each."""
    problems: list[str] = []
    for split, loader in dataloaders(cfg).items():
        if split in splits:
            walk(loader, lambda node: _check_dataset(node, problems))
            for evaluator in _as_list(cfg.get(f'{split}_evaluator')):
                _check_file(evaluator.get('ann_file'), problems)
    return list(dict.fromkeys(problems))


def expected_layout(cfg: Config, root: str | Path) -> str:
    """The files and folders that a config's task expects in the data folder `root`, over several lines."""
    return (_ADE20K if is_segmentor(cfg) else _COCO).format(root=root)


def _as_list(value: Any) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value or {}]


def _check_dataset(dataset: dict, problems: list[str]) -> None:
    """Check one dataset's config, if `dataset` is one that reads files: it has a `data_prefix`."""
    prefixes = dataset.get('data_prefix')
    if not prefixes:
        return
    root = Path(dataset.get('data_root') or '')
    folders = {key: root / prefix for key, prefix in prefixes.items()}
    absent = [folder for folder in folders.values() if not folder.is_dir()]
    problems += [f'no folder {folder}' for folder in absent]
    ann_file = dataset.get('ann_file')
    if ann_file and not _check_file(root / ann_file, problems):
        return
    if absent:
        return
    if ann_file and str(ann_file).endswith('.json'):
        _check_coco(root / ann_file, next(iter(folders.values())), problems)
    elif 'seg_map_path' in folders and not ann_file:
        _check_pairs(folders['img_path'], folders['seg_map_path'], problems)


def _check_file(path: str | Path | None, problems: list[str]) -> bool:
    if path and not Path(path).is_file():
        problems.append(f'no file {path}')
        return False
    return True


def _sample(items: list) -> list:
    return items[:: max(1, len(items) // _SAMPLE)]


def _check_coco(ann_file: Path, folder: Path, problems: list[str]) -> None:
    try:
        images = json.loads(ann_file.read_bytes())['images']
        names = [image['file_name'] for image in images]
    except (ValueError, KeyError, TypeError) as error:
        problems.append(f'{ann_file} is not a complete COCO annotation file ({type(error).__name__}: {error})')
        return
    looked_for = _sample(names)
    lacking = [name for name in looked_for if not (folder / name).is_file()]
    _report(lacking, looked_for, len(names), f'images that {ann_file} names', folder, problems)


def _check_pairs(images: Path, labels: Path, problems: list[str]) -> None:
    names = sorted(path.stem for path in images.glob('*.jpg'))
    if not names:
        problems.append(f'no *.jpg in {images}')
        return
    looked_for = _sample(names)
    lacking = [f'{name}.png' for name in looked_for if not (labels / f'{name}.png').is_file()]
    _report(lacking, looked_for, len(names), f'labels of the images in {images}', labels, problems)


def _report(
    lacking: list[str], looked_for: list[str], total: int, what: str, folder: Path, problems: list[str]
) -> None:
    if lacking:
        of = f'{len(looked_for)}' if len(looked_for) == total else f'{len(looked_for)} looked for, of {total}'
        examples = ', '.join(lacking[:3]) + (', ...' if len(lacking) > 3 else '')
        problems.append(f'{len(lacking)} of the {of} {what} are not in {folder}: {examples}')
