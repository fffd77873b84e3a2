"""Measured rows against a stored baseline: what deviates, is missing or failed, in words."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..rows import Row, describe, digest

# Of the whole model and of the backbone.
_COSTS = ('cost', 'backbone_cost')
_EXACT = ('parameters', 'macs', 'textbook_macs')


@dataclass(frozen=True)
class Tolerances:
    """How far from the baseline is no deviation.

    Attributes:
        points: Of metrics, in points (percent, absolute).
        memory: Of peak memory, as a fraction of the baseline's.
        latency: Of the median latency, as a fraction; None: not compared, since it is the machine's as much as the
            network's.
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
    """Hold rows that were measured here against those of a baseline, run by run and size by size.

    Metrics deviate upwards too: a baseline that is no longer true is to be renewed. Parameters and MACs are to be
    equal. Runs that the baseline does not know are no deviation, unless they failed.

    Args:
        rows: As `rows.read` gives them.
        baseline: Likewise; what it has as failed may still fail.
        tolerances: Default: half a point, a tenth of the memory, any latency.

    Returns:
        A sentence for everything that is not as it should be; empty: all is well.
    """
    tolerances = tolerances or Tolerances()
    found = {row['id']: row for row in rows if row['origin'] == 'measured'}
    expected = {row['id']: row for row in baseline if row['origin'] == 'measured'}
    finished = {key: row for key, row in expected.items() if row['state'] == 'finished'}
    if not finished:
        return ['the baseline has no measured, finished row: there is nothing to compare with']
    problems = []
    for key, old in finished.items():
        row = found.get(key)
        if row is None:
            problems.append(f'{describe(old)}: missing{_near_miss(old, found.values())}')
        elif row['state'] != 'finished':
            problems.append(_failure(row))
        else:
            problems += [f'{describe(old)}: {text}' for text in _deviations(row, old, tolerances)]
    return problems + [
        _failure(row) for key, row in found.items() if key not in expected and row['state'] != 'finished'
    ]


def _failure(row: Row) -> str:
    return f'{describe(row)}: {row["state"]}: {row["reason"] or "no reason given"}'


def _near_miss(old: Row, rows: Any) -> str:
    """Whether a row is the same run but for its config or weights, whose content is part of what a run is."""

    def apart(row: Row, *keys: str) -> str:
        return digest({key: value for key, value in row['identity'].items() if key not in ('commit', *keys)})

    for key, name in (('config_sha256', 'config'), ('weights_sha256', 'weights file')):
        if key in old['identity'] and any(key in r['identity'] and apart(r, key) == apart(old, key) for r in rows):
            return f'; the same run is there with another {name}: renew the baseline if that was meant'
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
    # The last digits are arithmetic's, not the network's; and whatever is no number deviates.
    elif not abs(new - old) <= points + 1e-9:
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
