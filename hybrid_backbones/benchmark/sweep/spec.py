"""What is to be measured: a YAML file, checked as a whole, and the jobs that follow from it."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from ...backbones.factory import list_backbones
from ...checkpoints.download import sha256
from ...checkpoints.reading import local_file
from ...engine.config import read_config
from ...swap import build_stages
from ..rows import digest, identify

# Height and width for which papers give the cost of detectors and segmentors.
_SIZES = {'mmdet': [800, 1280], 'mmseg': [512, 2048]}


class SpecError(ValueError):
    """A spec that cannot be run; every problem that was found."""


@dataclass(frozen=True)
class Job:
    """One row to be: a training run, or a profile of a backbone or a model. Plain data, for other processes.

    Args:
        record: `run` or `profile`.
        identity: As in the row, without the commit.
        task: How to come by it: paths and options, which differ between machines.
    """

    record: str
    identity: dict[str, Any]
    task: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return identify(self.record, self.identity)

    @property
    def precision(self) -> str:
        return self.identity.get('precision') or self.task['precision']

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> 'Job':
        return cls(**json.loads(text))


def read_spec(path: str | Path) -> list[Job]:
    """The jobs of a spec file: profiles first, which want the machine for themselves, then runs.

    Raises:
        FileNotFoundError: No such spec.
        SpecError: It is no YAML, does not follow `spec.schema.json`, or names backbones, configs, data or checkpoints
            that do not exist. All problems at once.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'no spec {path}; examples are in configs/transfer/')
    try:
        spec = yaml.safe_load(path.read_text(encoding='utf-8'))
    except yaml.YAMLError as error:
        raise SpecError(f'{path} is no YAML: {error}') from error
    problems = [f'{error.json_path}: {error.message}' for error in _validator().iter_errors(spec)]
    problems = problems or _problems(spec, path.parent)
    if problems:
        raise SpecError('\n  '.join([f'{path}: {len(problems)} problem{"s" * (len(problems) > 1)}', *problems]))
    return list(_jobs(spec, path.parent))


def _problems(spec: dict[str, Any], here: Path) -> list[str]:
    """What the spec names that is not there."""
    problems = []
    for backbone in _backbones(spec):
        try:
            build_stages(backbone['name'], backbone.get('options', {}))
        except ValueError as error:
            problems.append(f'backbones: {_shorten(error)}')
        try:
            _checkpoint(backbone.get('checkpoint'), here)
        except (OSError, ValueError) as error:
            problems.append(f'checkpoint of {backbone["name"]}: {error}')
    for framework in spec.get('frameworks', ()):
        try:
            _, values = _config(framework['config'], here)
            if framework.get('multi_scale'):
                problems += [f'multi_scale of {framework["name"]}: {text}' for text in _views_problems(values)]
        except (OSError, ValueError) as error:
            problems.append(f'config of {framework["name"]}: {error}')
        for name, root in framework['datasets'].items():
            if root is not None and not (here / root).is_dir():
                problems.append(f'dataset {name}: no folder {here / root}')
    for pattern in spec.get('profile', {}).get('backbones', ()):
        if not list_backbones(pattern):
            problems.append(f'profile: no backbone is called {pattern!r}')
    return list(dict.fromkeys(problems))


def _views_problems(values: dict[str, Any]) -> Iterator[str]:
    """Why a config cannot be tested at several scales."""
    if values.get('default_scope') != 'mmseg':
        yield 'segmentors only; mmdet merges no masks of views'
    elif 'tta_pipeline' not in values:
        yield 'the config has no tta_pipeline; configs/_base_/shapes_segmentation.py shows one'


def _shorten(error: ValueError) -> str:
    """An unknown backbone without the list of all: the nearest are named, and other problems wait."""
    text, _, hint = str(error).partition('. Did you mean')
    return text.partition('; choose one of')[0] + (f'. Did you mean{hint}' if hint else '')


def _jobs(spec: dict[str, Any], here: Path) -> Iterator[Job]:
    runs = [job for framework in spec.get('frameworks', ()) for job in _runs(spec, framework, here)]
    profiles = [*_backbone_profiles(spec), *map(model_profile, runs)]
    # The same model is profiled once, whatever the seeds.
    yield from {job.id: job for job in profiles}.values()
    yield from {job.id: job for job in runs}.values()


def _backbone_profiles(spec: dict[str, Any]) -> Iterator[Job]:
    wanted = spec.get('profile', dict(backbones=(), sizes=()))
    names = dict.fromkeys(name for pattern in wanted['backbones'] for name in list_backbones(pattern))
    for size, name in product(wanted['sizes'], names):
        pair = [size, size] if isinstance(size, int) else size
        identity = dict(backbone=name, options={}, framework=None, config_sha256=None, size=pair)
        yield Job('profile', dict(identity, batch_size=1, precision=_precision(spec)), dict(effort=_effort(spec)))


def model_profile(run: Job) -> Job:
    """The job that measures cost, speed and memory of the model that a run trains."""
    identity = {key: run.identity[key] for key in ('backbone', 'options', 'framework', 'config_sha256')}
    identity |= dict(size=run.task['size'], batch_size=1, precision=run.task['precision'])
    return Job('profile', identity, run.task)


def _runs(spec: dict[str, Any], framework: dict[str, Any], here: Path) -> Iterator[Job]:
    config, values = _config(framework['config'], here)
    schedules = framework.get('schedules') or {'as configured': {}}
    for backbone, (dataset, root), (schedule, options) in product(
        _backbones(spec), framework['datasets'].items(), schedules.items()
    ):
        checkpoint = _checkpoint(backbone.get('checkpoint'), here)
        task = dict(
            config=config,
            data_root=None if root is None else str((here / root).resolve()),
            options=options,
            checkpoint=checkpoint and str(checkpoint),
            size=framework.get('size', _SIZES[values['default_scope']]),
            precision=_precision(spec),
            effort=_effort(spec),
            multi_scale=framework.get('multi_scale', False),
        )
        identity = dict(
            backbone=backbone['name'],
            options=backbone.get('options', {}),
            framework=framework['name'],
            dataset=dataset,
            schedule=schedule,
            tier=spec['tier'],
            weights_sha256=checkpoint and sha256(checkpoint),
            config_sha256=digest([values, options, task['precision']]),
        )
        seeds = backbone.get('seeds') or spec.get('seeds') or [0]
        for seed, frozen in product(seeds, backbone.get('frozen') or spec.get('frozen') or [False]):
            yield Job('run', dict(identity, seed=seed, frozen=frozen), task)


def _precision(spec: dict[str, Any]) -> str:
    return spec.get('precision', 'fp32')


def _effort(spec: dict[str, Any]) -> dict[str, Any]:
    return dict(iterations=20, seconds=20) | spec.get('effort', {})


def _backbones(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(name=each) if isinstance(each, str) else each for each in spec.get('backbones', ())]


def _checkpoint(source: str | None, here: Path) -> Path | None:
    """The file, downloaded first where it is a URL or one of the index.

    Raises:
        OSError, ValueError: It is not there, or cannot be had.
    """
    if source is None:
        return None
    path = local_file(source if '://' in source else str(here / source)).resolve()
    if not path.is_file():
        raise FileNotFoundError(f'no file {path}')
    return path


@cache
def _config(path: str, here: Path) -> tuple[str, dict[str, Any]]:
    """Where a config is, and what it says; neither depends on the machine."""
    where = path if '::' in path else str((here / path).resolve())
    return where, json.loads(json.dumps(read_config(where).to_dict(), default=str))


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(json.loads(Path(__file__).with_name('spec.schema.json').read_text()))
