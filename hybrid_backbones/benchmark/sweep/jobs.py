"""The jobs of a sweep: training runs, and profiles of the backbones and models that they train."""

import copy
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from ...backbones.factory import list_backbones
from ...checkpoints.download import sha256
from ..rows import digest, identity_digest
from .inputs import find_checkpoint, load_framework_config
from .spec import Framework, Spec, read_spec

# Height and width for which papers give the cost of detectors and segmentors.
_SIZES = {'mmdet': [800, 1280], 'mmseg': [512, 2048]}
_EXPLAINING_HOOKS = 'PublishedNamesHook', 'NameBatchHook'


@dataclass(frozen=True)
class Job:
    """One future row: a training run, or a profile of a backbone or a model. Plain data, for other processes.

    Args:
        record: `run` or `profile`.
        identity: As in the row, without the commit.
        task: Paths and options, which may differ between machines.
    """

    record: str
    identity: dict[str, Any]
    task: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return identity_digest(self.record, self.identity)

    @property
    def precision(self) -> str:
        return self.identity.get('precision') or self.task['precision']

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> 'Job':
        return cls(**json.loads(text))


def read_jobs(path: str | Path) -> list[Job]:
    """The jobs of a spec file: profiles first, which need the machine for themselves, then runs.

    Raises:
        FileNotFoundError, SpecError: As :func:`.spec.read_spec`.
    """
    path = Path(path)
    spec = read_spec(path)
    runs = [job for framework in spec.frameworks for job in _runs(spec, framework, path.parent)]
    profiles = [*_backbone_profiles(spec), *map(_model_profile, runs)]
    # The same model is profiled once, whatever the seeds.
    return [*{job.id: job for job in profiles}.values(), *{job.id: job for job in runs}.values()]


def _backbone_profiles(spec: Spec) -> Iterator[Job]:
    if spec.profile is None:
        return
    names = dict.fromkeys(name for pattern in spec.profile.backbones for name in list_backbones(pattern))
    for size, name in product(spec.profile.sizes, names):
        identity = dict(backbone=name, options={}, framework=None, config_sha256=None, size=size)
        effort = spec.effort.model_dump()
        yield Job('profile', dict(identity, batch_size=1, precision=spec.precision), dict(effort=effort))


def _model_profile(run: Job) -> Job:
    """The job that measures cost, speed and memory of the model that a run trains."""
    keys = 'backbone', 'options', 'framework', 'config_sha256', 'engine'
    identity = {key: run.identity[key] for key in keys if key in run.identity}
    identity |= dict(size=run.task['size'], batch_size=1, precision=run.task['precision'])
    return Job('profile', identity, run.task)


def _runs(spec: Spec, framework: Framework, folder: Path) -> Iterator[Job]:
    config, values = load_framework_config(framework.config, folder)
    for backbone, dataset, (schedule, options) in product(
        spec.backbones, framework.datasets, framework.schedules.items()
    ):
        checkpoint = find_checkpoint(backbone.checkpoint, folder)
        task = dict(
            config=config,
            data_root=None,
            options=options,
            checkpoint=checkpoint and str(checkpoint),
            size=framework.size or _SIZES[values['default_scope']],
            precision=spec.precision,
            effort=spec.effort.model_dump(),
            multi_scale=framework.multi_scale,
        )
        identity = dict(
            backbone=backbone.name,
            options=backbone.options,
            framework=framework.name,
            dataset=dataset,
            schedule=schedule,
            tier=spec.tier,
            weights_sha256=checkpoint and sha256(checkpoint),
            config_sha256=digest([_settings_of_results(values), options, spec.precision]),
            # Absent otherwise: the ids of rows from before there were engines stay the same.
            **(dict(engine=framework.engine) if framework.engine else {}),
        )
        for seed, frozen in product(backbone.seeds or spec.seeds, backbone.frozen or spec.frozen):
            yield Job('run', dict(identity, seed=seed, frozen=frozen), task)


def _settings_of_results(values: dict[str, Any]) -> dict[str, Any]:
    """A config without what changes no result: the weights of its own backbone, in whose place a sweep puts others, and
    hooks that rename or explain.
    """
    values = copy.deepcopy(values)
    values.pop('checkpoint', None)
    values.get('model', {}).get('backbone', {}).pop('init_cfg', None)
    if 'custom_hooks' in values:
        values['custom_hooks'] = [hook for hook in values['custom_hooks'] if hook['type'] not in _EXPLAINING_HOOKS]
    return values
