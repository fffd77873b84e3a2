"""What is asked: the backbones of a spec, on its framework and dataset."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from ..._tasks import is_segmentor
from ...engine.config import load_config
from ..probes import Subject
from ..sweep import locate_datasets, read_jobs
from ..sweep.jobs import Job
from ..sweep.spec import SpecError


@dataclass(frozen=True)
class Question:
    """Backbones to compare on a task.

    Attributes:
        candidates: By what the answer calls them.
        framework: Name of the detector or segmentor.
        size: Height and width for multiply-adds, in pixels.
        cfg: Its config, with the data in place.
    """

    candidates: dict[str, Subject]
    framework: str
    size: tuple[int, int]
    cfg: Config

    @property
    def is_segmentation(self) -> bool:
        return is_segmentor(self.cfg)


def read_question(spec: Path, folders: Mapping[str, Path], results: Path) -> Question:
    """The question of a spec file.

    Args:
        spec: As for sweeps; schedules, seeds and the `frozen` list do not matter.
        folders: Of datasets, as `--data` gives them.
        results: Results folder.

    Raises:
        SpecError: The spec has one backbone, or more than one framework or dataset.
        DataError, FileNotFoundError, ValueError: As for sweeps.
    """
    runs = [job for job in locate_datasets(read_jobs(spec), folders) if job.record == 'run']
    tasks = sorted({(job.identity['framework'], job.identity['dataset']) for job in runs})
    if len(tasks) != 1:
        named = ', '.join(' on '.join(task) for task in tasks) or 'none'
        raise SpecError(f'{spec}: one framework on one dataset can be asked about, got {named}')
    candidates = {_label(job): _subject(job) for job in runs}
    if len(candidates) < 2:
        raise SpecError(f'{spec}: at least 2 backbones can be compared, got {", ".join(candidates)}')
    task = runs[0].task
    cfg = load_config(task['config'], str(results / 'config'), task['data_root'])
    return Question(candidates, tasks[0][0], tuple(task['size']), cfg)


def _subject(job: Job) -> Subject:
    return Subject(job.identity['backbone'], job.task['checkpoint'], job.identity['options'])


def _label(job: Job) -> str:
    options = ','.join(f'{key}={value!r}' for key, value in job.identity['options'].items())
    name = f'{job.identity["backbone"]}:{options}' if options else job.identity['backbone']
    return f'{name} ({Path(job.task["checkpoint"]).name})' if job.task['checkpoint'] else name
