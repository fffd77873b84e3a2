"""Published COCO, ADE20K and Cityscapes figures: quoted with their source, none of them measured here.

The table is `table.json`, one line per figure; `docs/results/published.md` shows it and is written by

    python -m hybrid_backbones.benchmark.quoted.page > docs/results/published.md
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

METRICS = ('box_AP', 'mask_AP', 'mIoU', 'mIoU_ms')
DATASETS = ('coco', 'ade20k', 'cityscapes')
# From the best source to none: the repository's own pages, text of the paper, somebody's copy of it, nothing read.
TRUST = ('readme', 'paper', 'third_party', 'memory')
USUAL = 'ImageNet-1k'


@dataclass(frozen=True)
class Quoted:
    """A published result.

    Args:
        backbone: Name for `create_backbone`; None for networks that are not here.
        label: As its authors call the network.
        framework: `mask_rcnn`, `cascade_mask_rcnn`, `upernet`, or another by its own name.
        dataset: One of `DATASETS`.
        schedule: `1x` is 12 epochs and `160k` iterations; others in words, as they are not to be compared with these.
        pretraining: What the backbone had been trained on, and what is unusual about it.
        metrics: AP and mIoU in percent, by the names in `METRICS`; `mIoU` is tested at one scale, `mIoU_ms` at several
            and with flips.
        source: Repository, file and commit, or paper and table.
        trust: One of `TRUST`, how the source was read.
        parameters_m: Of the whole detector or segmentor, in millions.
        macs_g: Its multiply-adds in thousand millions, which papers call FLOPs.
        size: Image that they are counted at, (height, width); given with `macs_g`.
        crop: Side of the training crops in pixels, of segmentors.
        by: Who trained it, where those are not the authors of the backbone.
        unverified: Metrics for which nothing was read that states them, unlike the others of this record.
        note: What else to know before comparing.
    """

    backbone: str | None
    label: str
    framework: str
    dataset: str
    schedule: str
    pretraining: str
    metrics: dict[str, float]
    source: str
    trust: str
    parameters_m: float | None = None
    macs_g: float | None = None
    size: tuple[int, int] | None = None
    crop: int | None = None
    by: str = ''
    unverified: tuple[str, ...] = ()
    note: str = ''

    def __post_init__(self):
        faults = {
            'metrics': not self.metrics or not set(self.metrics) <= set(METRICS),
            'unverified': not set(self.unverified) <= set(self.metrics),
            'dataset': self.dataset not in DATASETS,
            'trust': self.trust not in TRUST,
            'source': not self.source,
            'size': (self.size is None) != (self.macs_g is None),
        }
        for field, wrong in faults.items():
            if wrong:
                raise ValueError(f'table.json: {field}={getattr(self, field)!r} of {self.identity} is not allowed')

    @property
    def identity(self) -> tuple[str, ...]:
        """What no two records share."""
        return self.label, self.framework, self.dataset, self.schedule, self.pretraining, self.by

    def is_verified(self, metric: str) -> bool:
        """Whether a text that states this metric was read; others are never to be shown as facts."""
        return self.trust != 'memory' and metric not in self.unverified


@functools.cache
def _table() -> tuple[Quoted, ...]:
    rows = json.loads(Path(__file__).with_suffix('.json').read_text(encoding='utf-8'))
    lists = ('size', 'unverified')
    return tuple(Quoted(**row | {key: tuple(row[key]) for key in lists if key in row}) for row in rows)


def quoted(
    backbone: str | None = None, framework: str | None = None, dataset: str | None = None, schedule: str | None = None
) -> list[Quoted]:
    """The records that agree with every argument given, in the order of the table."""
    asked = dict(backbone=backbone, framework=framework, dataset=dataset, schedule=schedule)
    return [row for row in _table() if all(value in (None, getattr(row, key)) for key, value in asked.items())]


def published_value(
    backbone: str, framework: str, dataset: str, schedule: str, pretraining: str | None = None
) -> Quoted | None:
    """The record that a measured run of that setting is to be compared with, None where there is none.

    The authors' own before others', then the best source. Without `pretraining`, ImageNet-1k before anything else.
    Ask `is_verified` of a metric before taking a difference, and mind `crop` and `note`.
    """
    rows = [row for row in quoted(backbone, framework, dataset, schedule) if pretraining in (None, row.pretraining)]
    return min(rows, key=lambda row: (row.pretraining != USUAL, row.by != '', TRUST.index(row.trust)), default=None)
