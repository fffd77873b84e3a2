"""Published figures as rows, to stand beside measured ones in a report; marked, and never ranked."""

from collections.abc import Sequence
from datetime import datetime, timezone

from ..rows import Row, digest, seal
from .table import USUAL, Quoted, quoted

# What publications do not tell.
_UNKNOWN = dict(versions={}, operators='unknown', device='unknown', precision='unknown', threads=1)


def quoted_rows(measured: Sequence[Row]) -> list[Row]:
    """Rows of what authors publish for the frameworks and datasets of runs, pretrained on ImageNet-1k.

    Metrics that nobody has read in a source are left out.
    """
    settings = {
        (row['identity']['framework'], row['identity']['dataset']) for row in measured if row['record'] == 'run'
    }
    found = [q for framework, dataset in sorted(settings) for q in quoted(framework=framework, dataset=dataset)]
    rows = [_row(q) for q in found if q.pretraining == USUAL and not q.by]
    return [row for row in rows if row['metrics']]


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
    metrics = {name: value for name, value in q.metrics.items() if q.is_verified(name)}
    row = dict(record='run', origin='quoted', state='finished', reason=None, seconds=None, identity=identity)
    now = datetime.now(timezone.utc).strftime('%Y-%m-%dT%H:%M:%SZ')
    return seal(row | dict(time=now, environment=_UNKNOWN, metrics=metrics, curves={}))
