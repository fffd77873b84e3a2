"""Rows as CSV: one line for each row, units in the names of the columns."""

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from ..rows import Row

# Spreadsheets evaluate a text that begins with one of these.
_FORMULA = ('=', '+', '-', '@', '\t', '\r')

_COST = {
    'parameters': 'parameters',
    'macs': 'macs',
    'textbook_macs': 'textbook_macs',
    'activations': 'activations',
}
_SPEED = {
    'batch_size': 'batch_size',
    'median_s': 'latency_median_s',
    'p10_s': 'latency_p10_s',
    'p90_s': 'latency_p90_s',
    'images_per_s': 'images_per_s',
    'peak_fraction': 'fraction_of_peak',
    'peak_product': 'peak_product',
}
_MEMORY = {'inference_mib': 'inference_memory_mib', 'training_mib': 'training_memory_mib'}


def write_csv(rows: Sequence[Row]) -> str:
    """Rows as CSV; the text is empty if there are none."""
    lines = [{column: _cell(value) for column, value in flatten(row).items()} for row in rows]
    # With other dtypes, integers in columns that have empty cells would become floats.
    return pd.DataFrame(lines, dtype=object).to_csv(index=False) if lines else ''


def flatten(row: Row) -> dict[str, Any]:
    """A row without nesting."""
    flat = {key: row[key] for key in ('record', 'origin', 'state', 'reason', 'time')}
    flat['wall_clock_s'] = row.get('seconds')
    flat |= {key: value for key, value in row['identity'].items() if key not in ('options', 'size')}
    flat['options'] = _json(row['identity']['options'])
    flat |= _size('input', row['identity'])
    if weights := row.get('weights'):
        flat |= {'weights_file': weights['file'], 'weights_loaded_fraction': weights['loaded']}
    flat |= {f'{name}_percent': value for name, value in (row.get('metrics') or {}).items()}
    for name, (low, high) in (row.get('intervals') or {}).items():
        flat |= {f'{name}_low_percent': low, f'{name}_high_percent': high}
    for part, prefix, columns in (
        ('cost', 'model', {key: f'model_{name}' for key, name in _COST.items()}),
        ('backbone_cost', 'backbone', {key: f'backbone_{name}' for key, name in _COST.items()}),
        ('speed', 'timed', _SPEED),
        ('memory', '', _MEMORY),
    ):
        values = row.get(part) or {}
        flat |= {columns[key]: values[key] for key in columns if key in values}
        flat |= _size(prefix, values)
    flat |= _published(row)
    environment = row['environment']
    flat |= {key: environment[key] for key in ('device', 'precision', 'threads', 'operators')}
    return flat | {'versions': _json(environment['versions']), 'id': row['id'], 'digest': row['digest']}


def _published(row: Row) -> dict[str, Any]:
    published = row.get('published')
    if not published:
        return {}
    flat = {f'published_{name}_percent': value for name, value in published['metrics'].items()}
    flat |= {f'minus_published_{name}_points': value for name, value in published['difference'].items()}
    return flat | {f'published_{key}': published[key] for key in ('source', 'trust', 'schedule')}


def _size(prefix: str, values: dict[str, Any]) -> dict[str, int]:
    return (
        dict(zip((f'{prefix}_height_px', f'{prefix}_width_px'), values['size'], strict=True))
        if 'size' in values
        else {}
    )


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True) if value else ''


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
