"""Published figures as rows of origin `quoted`, which a report shows beside measured ones and never ranks."""

from collections.abc import Sequence
from datetime import datetime, timezone

from ..rows import Row, complete, digest
from .table import USUAL, Quoted, quoted

# Publications do not state it.
_UNKNOWN = dict(versions={}, operators='unknown', device='unknown', precision='unknown', threads=1)


def quoted_rows(measured: Sequence[Row]) -> list[Row]:
    """Rows of the authors' own figures for the frameworks and datasets of runs, pretrained on ImageNet-1k."""
    settings = {
        (row['identity']['framework'], row['identity']['dataset']) for row in measured if row['record'] == 'run'
    }
    found = [q for framework, dataset in sorted(settings) for q in quoted(framework=framework, dataset=dataset)]
    return [_row(q) for q in found if q.pretraining == USUAL and not q.by]


def _row(q: Quoted) -> Row:
    identity = dict(
        backbone=q.backbone or q.label,
        options={},
        framework=q.framework,
        dataset=q.dataset,
        schedule=q.schedule,
        tier='full',
        seed=0,
        frozen=False,
        weights_sha256=None,
        config_sha256=digest(q.identity),
        commit=None,
    )
    row = dict(record='run', origin='quoted', state='finished', reason=None, seconds=None, identity=identity)
    now = datetime.now(timezone.utc).strftime('%Y-%m-%dT%H:%M:%SZ')
    return complete(row | dict(time=now, environment=_UNKNOWN, metrics=q.metrics, curves={}))
