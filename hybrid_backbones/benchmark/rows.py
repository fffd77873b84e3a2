"""Rows of results: one JSON line per run, or per profile (cost and speed) of a backbone at a size.

`rows.jsonl` in a results folder is only ever appended to, under a lock, by any number of processes. Every line is
validated by the models of :mod:`.row_models` when it is written and when it is read, and carries a digest of itself.
"""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from filelock import FileLock
from mmengine.logging import print_log
from pydantic import ValidationError

from .._files import write_whole
from .row_models import ROW, SCHEMA_VERSION
from .validation import describe_errors

FILE = 'rows.jsonl'
# Rejected lines, with the reason.
DAMAGED = 'damaged.jsonl'
LOCK = 'rows.lock'

# A row as JSON has it: the digest covers exactly these values.
Row = dict[str, Any]


class ResultsError(ValueError):
    """A results folder, or a row, that cannot be used as it is."""


def digest(value: Any) -> str:
    """SHA-256 of a value as canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(',', ':')).encode()).hexdigest()


def identity_digest(record: str, identity: dict[str, Any]) -> str:
    """The `id` of a row: a digest of its identity without the commit, so that newer code repeats the same run."""
    return digest([record, {key: value for key, value in identity.items() if key != 'commit'}])[:16]


def complete(row: Row) -> Row:
    """`row` with `schema`, `id` and `digest` added, validated.

    Raises:
        ResultsError: It does not follow the schema; everything that is wrong.
    """
    row = dict(row, schema=SCHEMA_VERSION, id=identity_digest(row['record'], row['identity']))
    row['digest'] = _digest_of(row)
    if problems := _problems(row):
        raise ResultsError('\n  '.join([f'not a row of results: {describe_count(problems)}', *problems]))
    return row


def describe_count(problems: Sequence[str]) -> str:
    """`1 problem`, `3 problems`."""
    return f'{len(problems)} problem{"s" * (len(problems) != 1)}'


def append(folder: Path, row: Row) -> Row:
    """Add a row to a results folder, whole or not at all; returns it completed.

    Raises:
        OSError: It cannot be written (disk full, no permission); the file is unchanged.
        ResultsError: It does not follow the schema.
    """
    row = complete(row)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK):
        _append_line(folder / FILE, row)
    return row


def read(folder: Path) -> list[Row]:
    """One row per identity, in the order of the file: the finished one, else the latest.

    Lines that are cut, edited or otherwise invalid are moved to `damaged.jsonl`, with the reason.

    Raises:
        ResultsError: Rows of another schema version, or two finished rows of one identity; nothing is changed.
    """
    path = folder / FILE
    if not path.exists():
        return []
    with FileLock(folder / LOCK):
        lines = path.read_bytes().splitlines()
        parsed = [_parse(line) for line in lines]
        rows = _latest(path, [row for row, _ in parsed])
        damaged = {line: problem for line, (_, problem) in zip(lines, parsed, strict=True) if problem}
        if damaged:
            _move_damaged(folder, lines, damaged)
    return rows


def _append_line(path: Path, value: Any) -> None:
    with path.open('a+b') as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
        # A line that was cut off, by a machine that went down, must not run into the new one.
        separator = b'\n' if end and file.read(1) != b'\n' else b''
        try:
            file.write(separator + json.dumps(value, sort_keys=True).encode() + b'\n')
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            os.truncate(path, end)
            raise OSError(error.errno, f'{error.strerror}; the row was not added to', str(path)) from error


def _parse(line: bytes) -> tuple[Row | None, str | None]:
    """A line's row, or what is wrong with the line; rows of another schema version are returned unvalidated."""
    try:
        row = json.loads(line)
    except ValueError as error:  # also bytes that are no text
        return None, f'not JSON: {error}'
    if isinstance(row, dict) and isinstance(row.get('schema'), int) and row['schema'] != SCHEMA_VERSION:
        return row, None
    if problems := _problems(row):
        return None, '; '.join(problems)
    if row['digest'] != _digest_of(row):
        return None, 'edited: its digest does not match its content'
    return row, None


def _latest(path: Path, rows: Sequence[Row | None]) -> list[Row]:
    latest: dict[str, tuple[int, Row]] = {}
    for number, row in enumerate(rows, 1):
        if row is None:
            continue
        if row['schema'] != SCHEMA_VERSION:
            raise ResultsError(
                f'{path}, line {number}: schema version {row["schema"]}, expected {SCHEMA_VERSION}; use another '
                'results folder, or the version of hybrid_backbones that wrote it'
            )
        earlier, known = latest.get(row['id'], (0, None))
        if known and known['state'] == row['state'] == 'finished':
            raise ResultsError(
                f'{path}: lines {earlier} and {number} are finished rows of one identity, {describe(row)}; delete one'
            )
        if not (known and known['state'] == 'finished'):
            latest[row['id']] = number, row
    return [row for _, row in sorted(latest.values(), key=itemgetter(0))]


def describe(row: Row) -> str:
    """A row's identity in a few words."""
    identity = row['identity']
    if row['record'] == 'profile':
        parts = ['profile', *filter(None, [framework_of(identity)]), '{}x{}'.format(*identity['size'])]
    else:
        parts = [*filter(None, [framework_of(identity)]), identity['dataset'], identity['schedule']]
        parts += [f'seed {identity["seed"]}', *(['frozen'] if identity['frozen'] else [])]
        parts += ['pretrained'] if identity['weights_sha256'] else []
    options = ','.join(f'{key}={value!r}' for key, value in identity['options'].items())
    return ', '.join([f'{identity["backbone"]}:{options}' if options else identity['backbone'], *parts])


def framework_of(identity: dict[str, Any]) -> str | None:
    """The framework, with the engine that ran its exported file: `mask_rcnn in openvino`; None for a backbone alone."""
    engine = identity.get('engine')
    return f'{identity["framework"]} in {engine}' if engine else identity['framework']


def _move_damaged(folder: Path, lines: Sequence[bytes], damaged: dict[bytes, str]) -> None:
    for line, problem in damaged.items():
        _append_line(folder / DAMAGED, dict(problem=problem, line=line.decode(errors='replace')))
    write_whole(folder / FILE, b''.join(line + b'\n' for line in lines if line not in damaged))
    print_log(
        f'{len(damaged)} of {len(lines)} lines of {folder / FILE} are not valid rows and were moved to '
        f'{folder / DAMAGED}: ' + '; '.join(damaged.values()),
        level=logging.WARNING,
    )


def _digest_of(row: Row) -> str:
    return digest({key: value for key, value in row.items() if key != 'digest'})


def _problems(row: Any) -> list[str]:
    """Where and how a value does not follow the schema."""
    try:
        ROW.validate_json(json.dumps(row))
    except ValidationError as error:
        # Locations begin with the kind of row that was chosen by `record`.
        chosen = isinstance(row, dict) and row.get('record') in ('run', 'profile')
        return describe_errors(error, skip=int(chosen))
    return []
