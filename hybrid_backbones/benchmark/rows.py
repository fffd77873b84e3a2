"""Rows of results: one JSON line for a run, or for the cost and speed of a backbone at a size.

`rows.jsonl` in a results folder is only ever appended to, under a lock, by as many processes as like. Every line is
checked against `rows.schema.json`, when it is written and when it is read, and carries a digest of itself.
"""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

from filelock import FileLock
from jsonschema import Draft202012Validator
from mmengine.logging import print_log

from .._files import write_whole

SCHEMA_VERSION = 1
FILE = 'rows.jsonl'
# Lines that are no rows, and what was wrong with them.
DAMAGED = 'damaged.jsonl'
LOCK = 'rows.lock'

Row = dict[str, Any]


class ResultsError(ValueError):
    """A results folder that cannot be used as it is."""


def digest(value: Any) -> str:
    """SHA-256 of a value as canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(',', ':')).encode()).hexdigest()


def identify(record: str, identity: dict[str, Any]) -> str:
    """`id` of what has this identity: code that moves on does not make a run another."""
    return digest([record, {key: value for key, value in identity.items() if key != 'commit'}])[:16]


def seal(row: Row) -> Row:
    """`row` with `schema`, `id` and `digest`, checked.

    Raises:
        ResultsError: It does not follow the schema; where and how.
    """
    row = dict(row, schema=SCHEMA_VERSION, id=identify(row['record'], row['identity']))
    row['digest'] = _digest_of(row)
    if problem := _problem(row):
        raise ResultsError(f'not a row of results: {problem}')
    return row


def append(folder: Path, row: Row) -> Row:
    """Add a row to a results folder, whole or not at all; returns it sealed.

    Raises:
        OSError: It cannot be written (disk full, no permission); the file is as it was.
        ResultsError: It does not follow the schema.
    """
    row = seal(row)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK):
        _append_line(folder / FILE, row)
    return row


def read(folder: Path) -> list[Row]:
    """The row that counts for every identity, in the order of the file: the finished one, else the latest.

    Lines that are cut, edited or otherwise no rows are moved to `damaged.jsonl`, with what is wrong with them.

    Raises:
        ResultsError: Rows of another schema version, or two finished rows of one identity; nothing is changed.
    """
    path = folder / FILE
    if not path.exists():
        return []
    with FileLock(folder / LOCK):
        lines = path.read_bytes().splitlines()
        checked = [_parse(line) for line in lines]
        rows = _latest(path, [row for row, _ in checked])
        damaged = {line: problem for line, (_, problem) in zip(lines, checked, strict=True) if problem}
        if damaged:
            _set_aside(folder, lines, damaged)
    return rows


def _append_line(path: Path, value: Any) -> None:
    with path.open('a+b') as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
        # A line that was cut, by a machine that went down, stays one of its own.
        gap = b'\n' if end and file.read(1) != b'\n' else b''
        try:
            file.write(gap + json.dumps(value, sort_keys=True).encode() + b'\n')
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            os.truncate(path, end)
            raise OSError(error.errno, f'{error.strerror}; the row was not added to', str(path)) from error


def _parse(line: bytes) -> tuple[Row | None, str | None]:
    """A line's row, and what is wrong with it; rows of another version are passed as they are."""
    try:
        row = json.loads(line)
    except ValueError as error:  # also bytes that are no text
        return None, f'no JSON: {error}'
    if isinstance(row, dict) and isinstance(row.get('schema'), int) and row['schema'] != SCHEMA_VERSION:
        return row, None
    problem = _problem(row)
    if not problem and row['digest'] != _digest_of(row):
        problem = 'edited: its digest is of other content'
    return (None, problem) if problem else (row, None)


def _latest(path: Path, rows: Sequence[Row | None]) -> list[Row]:
    latest: dict[str, tuple[int, Row]] = {}
    for number, row in enumerate(rows, 1):
        if row is None:
            continue
        if row['schema'] != SCHEMA_VERSION:
            raise ResultsError(
                f'{path}, line {number}: schema version {row["schema"]}, and this is version {SCHEMA_VERSION}; use '
                'another results folder, or the version of hybrid_backbones that wrote it'
            )
        before, known = latest.get(row['id'], (0, None))
        if known and known['state'] == row['state'] == 'finished':
            raise ResultsError(
                f'{path}: lines {before} and {number} are finished rows of one identity, {describe(row)}; delete the '
                'one that is not to count'
            )
        if not (known and known['state'] == 'finished'):
            latest[row['id']] = number, row
    return [row for _, row in sorted(latest.values(), key=itemgetter(0))]


def describe(row: Row) -> str:
    """A row's identity in a few words."""
    identity = row['identity']
    if row['record'] == 'profile':
        parts = ['profile', *filter(None, [identity['framework']]), '{}x{}'.format(*identity['size'])]
    else:
        parts = [identity[key] for key in ('framework', 'dataset', 'schedule')]
        parts += [f'seed {identity["seed"]}', *(['frozen'] if identity['frozen'] else [])]
        parts += ['pretrained'] if identity['weights_sha256'] else []
    options = ','.join(f'{key}={value!r}' for key, value in identity['options'].items())
    return ', '.join([f'{identity["backbone"]}:{options}' if options else identity['backbone'], *parts])


def _set_aside(folder: Path, lines: Sequence[bytes], damaged: dict[bytes, str]) -> None:
    for line, problem in damaged.items():
        _append_line(folder / DAMAGED, dict(problem=problem, line=line.decode(errors='replace')))
    write_whole(folder / FILE, b''.join(line + b'\n' for line in lines if line not in damaged))
    print_log(
        f'{len(damaged)} of {len(lines)} lines of {folder / FILE} are no rows and were moved to {folder / DAMAGED}: '
        + '; '.join(damaged.values()),
        level=logging.WARNING,
    )


def _digest_of(row: Row) -> str:
    return digest({key: value for key, value in row.items() if key != 'digest'})


def _problem(row: Any) -> str | None:
    """Where and how a value does not follow the schema."""
    errors = sorted(_validator().iter_errors(row), key=lambda error: error.validator == 'unevaluatedProperties')
    return f'{errors[0].json_path}: {errors[0].message}' if errors else None


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(json.loads(Path(__file__).with_name('rows.schema.json').read_text()))
