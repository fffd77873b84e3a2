"""Rows grouped into settings, candidates and seeds: what is compared with what, and what is ranked.

A setting is a framework, dataset, schedule and tier, with the backbone frozen or not; a candidate is a backbone with
its options and weights. Only measured, finished rows are ranked.
"""

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ..costs import with_costs
from ..images import Images
from ..intervals import PerImage, redraw
from ..rows import Row, framework_of
from .statistics import deviation, interval

# A setting is ranked by the first of these that its rows have.
MAIN_METRICS = ('mask_AP', 'box_AP', 'mIoU')
# A setting is left out of rankings and pictures if all of its main metrics, in percent, are lower.
LEAST_SCORE = 0.5


@dataclass(frozen=True, order=True)
class Setting:
    """A framework with dataset and schedule, in which candidates are compared."""

    framework: str
    dataset: str
    schedule: str
    tier: str
    frozen: bool

    @property
    def label(self) -> str:
        parts = [self.framework, self.dataset, self.schedule]
        parts += [] if self.tier == 'full' else [self.tier]
        return ', '.join([*parts, *(['frozen'] if self.frozen else [])])


@dataclass(frozen=True)
class Candidate:
    """A name with options, and the digest of its pretrained weights (None: from scratch)."""

    backbone: str
    weights: str | None

    @property
    def family(self) -> str:
        return family_of(self.backbone)


@dataclass(frozen=True)
class Axis:
    """A cost against which scores are plotted.

    Attributes:
        title: With its unit.
        read: The cost of a row in that unit; None: unknown.
        conditions: Size and environment of a row's measurement: costs are comparable only if these are equal.
    """

    key: str
    title: str
    read: Callable[[Row], float | None]
    conditions: Callable[[Row], Hashable]


@dataclass(frozen=True)
class Group:
    """A candidate in a setting: its ranked rows, one for each seed.

    Attributes:
        per_image: Per-image results of the metric, of the rows that have some.
    """

    setting: Setting
    candidate: Candidate
    label: str
    metric: str
    rows: tuple[Row, ...]
    per_image: tuple[PerImage, ...] = field(default=(), compare=False)

    @property
    def values(self) -> list[float]:
        return [row['metrics'][self.metric] for row in self.rows]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        return deviation(self.values)

    @property
    def interval(self) -> float | None:
        return interval(self.values)

    @property
    def images(self) -> tuple[Hashable, ...]:
        """Of the first seed with per-image results."""
        return self.per_image[0].images if self.per_image else ()

    @cached_property
    def redrawn(self) -> np.ndarray | None:
        """Scores of redraws of the images in percent, the mean over seeds; None unless all have the same images."""
        same = [found for found in self.per_image if found.images == self.images]
        if len(same) < len(self.rows) or len(self.images) < 2:
            return None
        counts = redraw(len(self.images))
        return 100 * np.mean([found.scores(counts) for found in same], axis=0)

    def cost(self, axis: Axis) -> float | None:
        """Median over the seeds."""
        known = [value for row in self.rows if (value := axis.read(row)) is not None]
        return statistics.median(known) if known else None

    def conditions(self, axis: Axis) -> Hashable:
        return axis.conditions(self.rows[0])


def number(row: Row, *path: str, scale: float = 1) -> float | None:
    """`row[path[0]][path[1]]... * scale`, None where any of it is absent."""
    value: Any = row
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return None if value is None else value * scale


def _size(row: Row) -> Hashable:
    return tuple(number(row, 'cost', 'size') or ())


def _environment(row: Row, *keys: str) -> Hashable:
    """Parts of the environment in which speed and memory were measured."""
    environment = row.get('profiled_in') or row['environment']
    return tuple(environment[key] for key in keys)


def _speed_conditions(row: Row) -> Hashable:
    speed = row.get('speed') or {}
    return tuple(speed.get('size') or ()), speed.get('batch_size'), _environment(row, 'device', 'precision', 'threads')


def _memory_conditions(row: Row) -> Hashable:
    return _size(row), _environment(row, 'device', 'precision')


AXES = (
    Axis('macs', 'MACs, G', lambda row: number(row, 'cost', 'macs', scale=1e-9), _size),
    Axis('latency', 'latency, ms', lambda row: number(row, 'speed', 'median_s', scale=1e3), _speed_conditions),
    Axis('memory', 'memory in inference, MiB', lambda row: number(row, 'memory', 'inference_mib'), _memory_conditions),
    Axis(
        'training_memory',
        'memory in training, MiB',
        lambda row: number(row, 'memory', 'training_mib'),
        _memory_conditions,
    ),
    Axis('parameters', 'parameters, M', lambda row: number(row, 'cost', 'parameters', scale=1e-6), lambda row: None),
)


class Results:
    """All rows of a report, grouped; runs have the costs of their model's profile.

    Args:
        images: Per-image results of rows, by the id of the row.
    """

    def __init__(self, rows: Sequence[Row], images: Mapping[str, Images] | None = None) -> None:
        self.rows = with_costs(rows)
        self._images = images or {}
        self.runs = [row for row in self.rows if row['record'] == 'run']
        # Backbones alone: profiles of whole models are part of the runs.
        self.profiles = [r for r in self.rows if r['record'] == 'profile' and r['identity']['framework'] is None]

    @cached_property
    def labels(self) -> dict[Candidate, str]:
        """Unique names of candidates: the backbone, with its weights file if it occurs with several."""
        files = {candidate_of(row): _weights_file(row) for row in self.runs}
        names = {candidate: [candidate.backbone] for candidate in files}
        for candidate, file in files.items():
            names[candidate] += [f'{candidate.backbone}, {file}', f'{candidate.backbone}, {file} {candidate.weights}']
        used = [Counter(levels[i] for levels in names.values()) for i in range(3)]
        return {c: next((name for i, name in enumerate(n) if used[i][name] == 1), n[-1]) for c, n in names.items()}

    @cached_property
    def metrics(self) -> dict[Setting, str]:
        """The metric by which each setting is ranked; settings without one, or without a score, are absent."""
        found = {s: main_metric(rows) for s, rows in self._finished.items() if s not in self.without_scores}
        return {s: metric for s, metric in found.items() if metric}

    @cached_property
    def without_scores(self) -> list[Setting]:
        """Settings in which no candidate scores: they are left out of rankings and pictures."""
        best = {
            setting: max((row['metrics'].get(name, 0) for row in rows for name in MAIN_METRICS), default=0)
            for setting, rows in self._finished.items()
            if main_metric(rows)
        }
        return [setting for setting, score in best.items() if score < LEAST_SCORE]

    @cached_property
    def drawn_runs(self) -> list[Row]:
        """Runs in the settings that are ranked or drawn."""
        return [row for row in self.runs if setting_of(row) not in self.without_scores]

    @cached_property
    def _finished(self) -> dict[Setting, list[Row]]:
        of_setting: dict[Setting, list[Row]] = defaultdict(list)
        for row in filter(_finished, self.runs):
            of_setting[setting_of(row)].append(row)
        return {setting: of_setting[setting] for setting in sorted(of_setting)}

    @cached_property
    def groups(self) -> dict[Setting, list[Group]]:
        """The groups of every setting with ranked rows, best first."""
        seeds: dict[tuple[Setting, Candidate], list[Row]] = defaultdict(list)
        for row in filter(_finished, self.runs):
            metric = self.metrics.get(setting_of(row))
            if metric in row['metrics']:
                seeds[setting_of(row), candidate_of(row)].append(row)
        groups = [self._group(setting, candidate, rows) for (setting, candidate), rows in seeds.items()]
        by_setting = {s: [group for group in groups if group.setting == s] for s in self.metrics}
        return {s: sorted(found, key=lambda g: (-g.mean, g.label)) for s, found in by_setting.items()}

    def _group(self, setting: Setting, candidate: Candidate, rows: Sequence[Row]) -> Group:
        metric = self.metrics[setting]
        images = [self._images.get(row['id'], {}).get(metric) for row in rows]
        known = tuple(found for found in images if found is not None)
        return Group(setting, candidate, self.labels[candidate], metric, tuple(rows), known)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Mean scores: a row per candidate, a column per setting."""
        return pd.DataFrame({s: {g.candidate: g.mean for g in groups} for s, groups in self.groups.items()})

    @property
    def tiers(self) -> set[str]:
        return {row['identity']['tier'] for row in self.runs}

    @cached_property
    def families(self) -> list[str]:
        """Families that plots may show."""
        shown = [
            row for row in self.drawn_runs if row['origin'] == 'measured' and (_finished(row) or row.get('curves'))
        ]
        shown += [row for row in self.profiles if row['origin'] == 'measured']
        return sorted({family_of(row['identity']['backbone']) for row in shown})


def main_metric(rows: Sequence[Row]) -> str | None:
    """The metric by which these rows are ranked; None if they have none."""
    present = {name for row in rows for name in row.get('metrics') or {}}
    return next((name for name in MAIN_METRICS if name in present), None)


def setting_of(row: Row) -> Setting:
    values = row['identity'] | dict(framework=framework_of(row['identity']))
    return Setting(*(values[field.name] for field in fields(Setting)))


def candidate_of(row: Row) -> Candidate:
    return Candidate(backbone_of(row), row['identity']['weights_sha256'])


def backbone_of(row: Row) -> str:
    """Name and options: `deit_s:window_size=14`."""
    options = ','.join(f'{key}={value!r}' for key, value in sorted(row['identity']['options'].items()))
    name = row['identity']['backbone']
    return f'{name}:{options}' if options else name


def family_of(backbone: str) -> str:
    """The first word of a name that is not a library or a size: a family has one colour, whatever its library."""
    words = backbone.split(':')[0].split('_')
    return next((word for word in words if word not in ('timm', 'tf', 'tiny')), backbone)


def _weights_file(row: Row) -> str:
    if row['identity']['weights_sha256'] is None:
        return 'from scratch'
    return (row.get('weights') or {}).get('file') or 'pretrained'


def _finished(row: Row) -> bool:
    """Measured here, to the end, with metrics."""
    return row['origin'] == 'measured' and row['state'] == 'finished' and bool(row.get('metrics'))
