"""The files that a spec refers to: checkpoints, configs, and the folders of its datasets."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...checkpoints.reading import local_file
from ...datasets.checks import DataError, expected_layout, missing_data
from ...datasets.roots import set_data_root
from ...engine.config import read_config

if TYPE_CHECKING:
    from .jobs import Job


def find_checkpoint(source: str | None, folder: Path) -> Path | None:
    """The file of a checkpoint, downloaded first where it is a URL or one of the index; paths start from `folder`.

    Raises:
        OSError, ValueError: It does not exist, or cannot be downloaded.
    """
    if source is None:
        return None
    path = local_file(source if '://' in source else str(folder / source)).resolve()
    if not path.is_file():
        raise FileNotFoundError(f'no file {path}')
    return path


@cache
def load_framework_config(path: str, folder: Path) -> tuple[str, dict[str, Any]]:
    """Absolute path of a config, and its values, which do not depend on the machine; paths start from `folder`."""
    location = path if '::' in path else str((folder / path).resolve())
    return location, json.loads(json.dumps(read_config(location).to_dict(), default=str))


def data_variable(dataset: str) -> str:
    """Environment variable with the folder of a dataset: `HYBRID_BACKBONES_DATA_COCO_MINI` for `coco_mini`."""
    return 'HYBRID_BACKBONES_DATA_' + re.sub('[^A-Z0-9]+', '_', dataset.upper())


def locate_datasets(jobs: Sequence['Job'], folders: Mapping[str, Path]) -> list['Job']:
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
    roots = {pair: folders.get(pair[1]) or os.environ.get(data_variable(pair[1])) for pair in used}
    if problems := [text for (config, dataset), root in roots.items() if (text := _problem(config, dataset, root))]:
        raise DataError('\n'.join(dict.fromkeys(problems)))
    return [_with_root(job, roots) if job.record == 'run' else job for job in jobs]


def _with_root(job: 'Job', roots: Mapping[tuple[str, str], str | Path | None]) -> 'Job':
    root = roots[job.task['config'], job.identity['dataset']]
    return replace(job, task=job.task | dict(data_root=None if root is None else str(Path(root).resolve())))


def _problem(config: str, dataset: str, root: str | Path | None) -> str | None:
    """Why a config cannot read its data from `root` (None: from where it says), and what to do."""
    cfg = read_config(config)
    if cfg.get('embedded_data'):
        return None
    if root is not None:
        set_data_root(cfg, str(root))
    missing = missing_data(cfg, ('train', 'val'))
    if not missing:
        return None
    lines = '\n'.join(f'  {problem}' for problem in missing)
    return (
        f'dataset {dataset} is missing or incomplete:\n{lines}\n{expected_layout(cfg, root or "FOLDER")}\n'
        f'Give its folder by --data {dataset}=FOLDER or {data_variable(dataset)}=FOLDER.'
    )
