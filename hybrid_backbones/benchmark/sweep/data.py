"""The folders of a sweep's datasets, which are given when it is run, and checked before any job starts."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...datasets.checks import DataError, expected_layout, missing_data
from ...datasets.roots import set_data_root
from ...engine.config import read_config
from .jobs import Job


def data_variable(dataset: str) -> str:
    """Environment variable with the folder of a dataset: `HYBRID_BACKBONES_DATA_COCO_MINI` for `coco_mini`."""
    return 'HYBRID_BACKBONES_DATA_' + re.sub('[^A-Z0-9]+', '_', dataset.upper())


def locate_datasets(jobs: Sequence[Job], folders: Mapping[str, Path]) -> list[Job]:
    """Jobs whose runs know the folder of their dataset.

    A folder is given in `folders`, else by the environment variable of :func:`data_variable`, else it is where the
    config says. Datasets that the package draws itself need none.

    Raises:
        DataError: Folders that are missing or incomplete, all of them, with the layout that is expected.
        ValueError: `folders` has a dataset that no job uses.
    """
    used = {(job.task['config'], job.identity['dataset']): None for job in jobs if job.record == 'run'}
    if unknown := sorted(folders.keys() - {dataset for _, dataset in used}):
        names = ', '.join(sorted({dataset for _, dataset in used})) or 'none'
        raise ValueError(f'--data {", ".join(unknown)}: the spec has no such dataset; it has {names}')
    roots = {pair: _given_folder(pair[1], folders) for pair in used}
    if problems := [text for (config, dataset), root in roots.items() if (text := _problem(config, dataset, root))]:
        raise DataError('\n'.join(dict.fromkeys(problems)))
    return [_with_root(job, roots) if job.record == 'run' else job for job in jobs]


def _given_folder(dataset: str, folders: Mapping[str, Path]) -> str | None:
    folder = folders.get(dataset) or os.environ.get(data_variable(dataset))
    return str(Path(folder).expanduser().resolve()) if folder else None


def _with_root(job: Job, roots: Mapping[tuple[str, str], str | None]) -> Job:
    return replace(job, task=job.task | dict(data_root=roots[job.task['config'], job.identity['dataset']]))


def _problem(config: str, dataset: str, root: str | None) -> str | None:
    """Why a config cannot read its data from `root` (None: from where it says), and what to do."""
    cfg = read_config(config)
    if cfg.get('embedded_data'):
        return None
    if root is not None:
        set_data_root(cfg, root)
    missing = missing_data(cfg, ('train', 'val'))
    if not missing:
        return None
    lines = '\n'.join(f'  {problem}' for problem in missing)
    return (
        f'dataset {dataset} is missing or incomplete:\n{lines}\n{expected_layout(cfg, root or "FOLDER")}\n'
        f'Give its folder by --data {dataset}=FOLDER or {data_variable(dataset)}=FOLDER.'
    )
