"""The index of published detectors and segmentors: sources, configs, figures.

The table is `published_models.json`, a line per file under the family that it is of. Their backbones' tensors are
renamed when a model loads them, see :mod:`hybrid_backbones.checkpoints.whole_models`.
"""

import functools
import json
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from .sources import SCHEME, PublishedFile, Source


@dataclass(frozen=True)
class PublishedModel(PublishedFile):
    """A published detector or segmentor.

    Args:
        name: By which `hybrid://` finds it.
        backbone: Name for `create_backbone`.
        config: One in `configs/` that builds this model.
        schedule: `1x` is 12 epochs, `160k` iterations.
        pretraining: Data that the backbone was pretrained on.
        metrics: In percent, as published: `box_AP` and `mask_AP` on COCO's val2017; or on ADE20K's validation set
            `mIoU` at one scale, and `mIoU_ms` at several and with flips.
        sources: Where it can be had, in the order in which they are tried.
        family: Its architecture, and who trained it if not the architecture's authors.
        licence: Of the repository that publishes it.
        source: Page that states these figures.
        options: `--cfg-options` with which the config tests as its authors did.
        note: What else to know.
    """

    name: str
    backbone: str
    config: str
    schedule: str
    pretraining: str
    metrics: dict[str, float]
    sources: tuple[Source, ...]
    family: str
    licence: str
    source: str
    options: tuple[str, ...] = ()
    note: str = ''

    @property
    def command(self) -> str:
        """Evaluates it; `metrics` are what to expect."""
        options = f' --cfg-options {" ".join(self.options)}' if self.options else ''
        return f'hybrid-backbones test hybrid_backbones::{self.config}.py {SCHEME}{self.name}{options}'


@functools.cache
def _models() -> tuple[PublishedModel, ...]:
    table = json.loads(Path(__file__).with_suffix('.json').read_text(encoding='utf-8'))
    return tuple(row for entry in table for row in _family(**entry))


def _family(
    family: str, licence: str, source: str, files: list[dict[str, Any]], note: str = ''
) -> list[PublishedModel]:
    common = dict(family=family, licence=licence, source=source)
    return [
        PublishedModel(
            **common
            | row
            | dict(
                sources=tuple(Source(**place) for place in row['sources']),
                options=tuple(row.get('options', ())),
                note='; '.join(filter(None, (row.get('note', ''), note))),
            )
        )
        for row in files
    ]


def list_models(pattern: str = '*') -> list[PublishedModel]:
    """Detectors and segmentors whose name matches a shell pattern such as `'cascade_*'`, in the order of the index."""
    return [row for row in _models() if fnmatch(row.name, pattern)]
