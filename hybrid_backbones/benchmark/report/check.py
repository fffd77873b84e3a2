"""Comparison of measured rows with a stored baseline: deviations, missing rows and failures."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..costs import with_costs
from ..rows import Row, describe, digest

# Of the whole model, and of the backbone.
_COSTS = ('cost', 'backbone_cost')
_EXACT = ('parameters', 'macs', 'textbook_macs')


@dataclass(frozen=True)
class Tolerances:
    """Allowed differences from the baseline.

    Attributes:
        points: For metrics, in points (absolute difference of percentages).
        memory: For peak memory, as a fraction of the baseline's.
        latency: For the median latency, as a fraction; None: not compared, since it depends on the machine.
    """

    points: float = 0.5
    memory: float = 0.1
    latency: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not value >= 0:
                raise ValueError(f'tolerance of {name} is {value}; it must be 0 or more')


def compare_with_baseline(
    rows: Sequence[Row], baseline: Sequence[Row], tolerances: Tolerances | None = None
) -> list[str]:
    """Compare measured rows with those of a baseline, run by run and size by size.

    Metrics may deviate upwards too: then the baseline needs to be renewed. Parameters and MACs must be equal. Runs that
    are not in the baseline are ignored unless they failed.

    Args:
        rows: From `rows.read`.
        baseline: From `rows.read`; jobs that failed there may fail.
        tolerances: Default: half a point, a tenth of the memory, any latency.

    Returns:
        One line for each deviation, missing row and failure; empty if there is none.
    """
    tolerances = tolerances or Tolerances()
    found = {row['id']: row for row in with_costs(rows) if row['origin'] == 'measured'}
    expected = {row['id']: row for row in with_costs(baseline) if row['origin'] == 'measured'}
    finished = {key: row for key, row in expected.items() if row['state'] == 'finished'}
    if not finished:
        return ['the baseline has no measured, finished row: there is nothing to compare with']
    problems = []
    for key, old in finished.items():
        row = found.get(key)
        if row is None:
            problems.append(f'{describe(old)}: missing{_same_but_for_a_file(old, found.values())}')
        elif row['state'] != 'finished':
            problems.append(_failure(row))
        else:
            problems += [f'{describe(old)}: {text}' for text in _deviations(row, old, tolerances)]
    return problems + [
        _failure(row) for key, row in found.items() if key not in expected and row['state'] != 'finished'
    ]


def _failure(row: Row) -> str:
    return f'{describe(row)}: {row["state"]}: {row["reason"] or "no reason given"}'


def _same_but_for_a_file(old: Row, rows: Any) -> str:
    """A hint if there is a row of the same run with another config or weights file."""

    def without(row: Row, key: str) -> str:
        return digest({name: value for name, value in row['identity'].items() if name not in ('commit', key)})

    for key, name in (('config_sha256', 'config'), ('weights_sha256', 'weights file')):
        if key in old['identity'] and any(key in r['identity'] and without(r, key) == without(old, key) for r in rows):
            return f'; there is such a run with another {name}: renew the baseline if that is intended'
    return ''


def _deviations(row: Row, old: Row, tolerances: Tolerances) -> Iterator[str]:
    for name, value in (old.get('metrics') or {}).items():
        yield from _metric(name, (row.get('metrics') or {}).get(name), value, tolerances.points)
    for part in _COSTS:
        yield from _cost(part.replace('_', ' '), row.get(part), old.get(part))
    for name, value in (old.get('memory') or {}).items():
        new = (row.get('memory') or {}).get(name)
        yield from _relative(f'peak memory ({name.removesuffix("_mib")}), MiB', new, value, tolerances.memory)
    if tolerances.latency is not None and old.get('speed'):
        new = (row.get('speed') or {}).get('median_s')
        yield from _relative('latency, s', new, old['speed']['median_s'], tolerances.latency)


def _metric(name: str, new: float | None, old: float, points: float) -> Iterator[str]:
    if new is None:
        yield f'{name} is missing; the baseline has {old:.2f}'
    # Differences of rounded numbers may exceed the tolerance in the last binary digit.
    elif abs(new - old) > points + 1e-9:
        yield f'{name} is {new:.2f}, {new - old:+.2f} points from {old:.2f}; {points:g} are allowed'


def _cost(part: str, new: dict[str, Any] | None, old: dict[str, Any] | None) -> Iterator[str]:
    if not old:
        return
    if not new:
        yield f'{part} is missing'
    elif new['size'] != old['size']:
        yield f'{part} is of {_size(new)} pixels, the baseline of {_size(old)}'
    else:
        for name in _EXACT:
            if new[name] != old[name]:
                yield f'{part}: {name} are {new[name]:,}; the baseline has {old[name]:,}'


def _relative(name: str, new: float | None, old: float | None, fraction: float) -> Iterator[str]:
    if old is None:
        return
    if new is None:
        yield f'{name} is missing; the baseline has {old:.4g}'
    elif not math.isclose(new, old, rel_tol=0, abs_tol=fraction * abs(old)):
        change = f'{new / old - 1:+.1%}' if old else 'from nothing'
        yield f'{name} is {new:.4g}, {change} against {old:.4g}; {fraction:.0%} are allowed'


def _size(cost: dict[str, Any]) -> str:
    return '×'.join(map(str, cost['size']))
