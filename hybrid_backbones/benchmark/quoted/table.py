"""Published COCO, ADE20K and Cityscapes figures, quoted with their source; none was measured here.

The table is `table.json`, one line per figure; `docs/results/published.md` shows it and is written by

    python -m hybrid_backbones.benchmark.quoted.page > docs/results/published.md
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

METRICS = ('box_AP', 'mask_AP', 'mIoU', 'mIoU_ms')
DATASETS = ('coco', 'ade20k', 'cityscapes')
# How a figure was read, best first: on the repository's own pages, in the paper, in somebody else's copy of it.
TRUST = ('readme', 'paper', 'third_party')
USUAL = 'ImageNet-1k'


@dataclass(frozen=True)
class Quoted:
    """A published result.

    Args:
        backbone: Name for `create_backbone`; None for networks that are not here.
        label: As its authors call the network.
        framework: `mask_rcnn`, `cascade_mask_rcnn`, `upernet`, or another by its own name.
        dataset: One of `DATASETS`.
        schedule: `1x` is 12 epochs, `160k` iterations; schedules that are not comparable with these are in words.
        pretraining: Data that the backbone was pretrained on, and what is unusual about it.
        metrics: AP and mIoU in percent, by the names in `METRICS`; `mIoU` is tested at one scale, `mIoU_ms` at several
            and with flips.
        source: Repository, file and commit, or paper and table.
        trust: How the source was read, one of `TRUST`.
        parameters_m: Of the whole detector or segmentor, in millions.
        macs_g: Its multiply-adds in units of 1e9, which papers call FLOPs.
        size: Height and width in pixels of the image for which `macs_g` is counted.
        crop: Side of the training crops in pixels; segmentors only.
        by: Who trained it; empty for the authors of the backbone.
        note: What else to know before comparing.
        file: Name in the index of published detectors and segmentors of the trained file; empty for none.
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
    note: str = ''
    file: str = ''

    def __post_init__(self):
        faults = {
            'metrics': not self.metrics or not set(self.metrics) <= set(METRICS),
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
        """Unique to each record."""
        return self.label, self.framework, self.dataset, self.schedule, self.pretraining, self.by


@functools.cache
def _table() -> tuple[Quoted, ...]:
    rows = json.loads(Path(__file__).with_suffix('.json').read_text(encoding='utf-8'))
    return tuple(Quoted(**row | ({'size': tuple(row['size'])} if 'size' in row else {})) for row in rows)


def quoted(
    backbone: str | None = None, framework: str | None = None, dataset: str | None = None, schedule: str | None = None
) -> list[Quoted]:
    """The records that match every given argument, in the order of the table."""
    wanted = dict(backbone=backbone, framework=framework, dataset=dataset, schedule=schedule)
    return [row for row in _table() if all(value in (None, getattr(row, key)) for key, value in wanted.items())]


def published_value(
    backbone: str, framework: str, dataset: str, schedule: str, pretraining: str | None = None
) -> Quoted | None:
    """The record to compare a measured run of that setting with; None if there is none.

    Preferred are ImageNet-1k pretraining (unless `pretraining` is given), then the authors' own figures, then the best
    source. `crop` and `note` say what else may differ.
    """
    rows = [row for row in quoted(backbone, framework, dataset, schedule) if pretraining in (None, row.pretraining)]
    return min(rows, key=lambda row: (row.pretraining != USUAL, row.by != '', TRUST.index(row.trust)), default=None)
