"""Rows of results: no row is lost or edited, and every line follows the schema."""

import json
import math
import multiprocessing
import shutil
import subprocess
from pathlib import Path

import pytest

from hybrid_backbones.benchmark import rows
from hybrid_backbones.benchmark.rows import ResultsError, append, read

ENVIRONMENT = dict(versions={'torch': '2.9'}, operators='ours', device='a CPU', precision='fp32', threads=1)
IDENTITY = dict(
    backbone='cvt_13',
    options={},
    framework='upernet',
    dataset='ade20k_mini',
    schedule='100 iterations',
    tier='proxy',
    seed=0,
    frozen=False,
    weights_sha256=None,
    config_sha256='c0ffee',
    commit='abc',
)


def run(state: str = 'finished', **identity) -> dict:
    return dict(
        record='run',
        origin='measured',
        state=state,
        reason=None if state == 'finished' else 'it broke',
        time='2026-01-31T12:00:00Z',
        seconds=12.5,
        identity=IDENTITY | identity,
        environment=ENVIRONMENT,
        metrics={'mIoU': 12.5} if state == 'finished' else {},
        curves={'loss': [[10, 3.2], [20, 2.9]]},
    )


def test_row_round_trip(tmp_path):
    row = append(tmp_path, run())
    assert read(tmp_path) == [row]
    assert row['metrics'] == {'mIoU': 12.5}


def test_finished_row_replaces_failures_of_any_commit(tmp_path):
    append(tmp_path, run('failed'))
    append(tmp_path, run('killed', seed=1))
    append(tmp_path, run('finished', commit='def'))
    # From a process that had started before the other finished.
    append(tmp_path, run('killed'))
    assert [(row['identity']['seed'], row['state']) for row in read(tmp_path)] == [(1, 'killed'), (0, 'finished')]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(metrics={'AP': 3.0}), r"metrics\.AP\.\[key\]: String should match pattern .*, got 'AP'"),
        (dict(metrics={'mIoU': 101.0}), r'metrics\.mIoU: Input should be less than or equal to 100, got 101\.0'),
        (dict(metrics={'mIoU': math.nan}), r'metrics\.mIoU: .*, got nan'),
        (dict(state='done', seconds='1'), r"2 problems\n  state: .*'killed', got 'done'\n  seconds: .*number, got '1'"),
        (dict(identity={}), r'11 problems\n  identity\.backbone: Field required\n  identity\.options: Field'),
        (dict(note='x'), 'note: Extra inputs are not permitted'),
        (dict(curves={'loss': [[1, 2, 3]]}), r'curves\.loss\.0: .*at most 2 items'),
        (dict(record='walk'), 'record'),
    ],
)
def test_invalid_row_is_not_written_and_every_problem_is_listed(tmp_path, change, message):
    with pytest.raises(ResultsError, match=message):
        append(tmp_path, run() | change)
    assert read(tmp_path) == []


def test_truncated_line_is_moved_and_other_rows_are_kept(tmp_path, caplog):
    append(tmp_path, run())
    whole = (tmp_path / rows.FILE).read_bytes()
    cut = whole[: len(whole) // 2]
    (tmp_path / rows.FILE).write_bytes(whole + cut)  # the machine went down in the middle of a line
    append(tmp_path, run(seed=1))
    assert [row['identity']['seed'] for row in read(tmp_path)] == [0, 1]
    (moved,) = [json.loads(line) for line in (tmp_path / rows.DAMAGED).read_text().splitlines()]
    assert moved['line'] == cut.decode()
    assert moved['problem'].startswith('not JSON')
    assert cut not in (tmp_path / rows.FILE).read_bytes().splitlines()
    assert [row['identity']['seed'] for row in read(tmp_path)] == [0, 1]


def test_edited_row_is_rejected(tmp_path):
    append(tmp_path, run())
    path = tmp_path / rows.FILE
    path.write_text(path.read_text().replace('12.5}', '52.5}'))
    assert read(tmp_path) == []
    assert '52.5}' in (tmp_path / rows.DAMAGED).read_text().replace('\\"', '"')


def test_other_schema_version_is_an_error_and_changes_nothing(tmp_path):
    append(tmp_path, run())
    path = tmp_path / rows.FILE
    path.write_text(path.read_text() + '{"schema": 2, "whatever": 1}\nno row\n')
    before = path.read_bytes()
    with pytest.raises(ResultsError, match=r'rows\.jsonl, line 2: schema version 2, expected 1; use another'):
        read(tmp_path)
    assert path.read_bytes() == before
    assert not (tmp_path / rows.DAMAGED).exists()


def test_duplicate_finished_rows_are_an_error_with_both_lines(tmp_path):
    append(tmp_path, run())
    append(tmp_path, run(seed=1))
    append(tmp_path, run(commit='def'))
    with pytest.raises(ResultsError, match=r'lines 1 and 3 are finished rows of one identity, cvt_13, upernet'):
        read(tmp_path)


def _append_many(folder: Path, first: int) -> None:
    for seed in range(first, first + 20):
        append(folder, run(seed=seed))


def test_concurrent_writers_do_not_mix_lines(tmp_path):
    context = multiprocessing.get_context('fork')
    processes = [context.Process(target=_append_many, args=(tmp_path, first)) for first in (0, 100, 200)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    seeds = {row['identity']['seed'] for row in read(tmp_path)}
    assert seeds == {first + i for first in (0, 100, 200) for i in range(20)}
    assert not (tmp_path / rows.DAMAGED).exists()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    disk = tmp_path / 'disk'
    disk.mkdir()
    mounted = shutil.which('mount') and subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', str(disk)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip('no small file system can be mounted here (it takes root)')
    yield disk
    subprocess.run(['umount', str(disk)], check=True)


def test_full_disk_loses_no_row_and_leaves_no_partial_one(small_disk):
    append(small_disk, run())
    # Fill the disk: the row needs another page of the file than the one it has.
    filler = small_disk / 'filler'
    with pytest.raises(OSError, match='No space left'), filler.open('wb', buffering=0) as file:
        for _ in range(1000):
            file.write(b'0' * 1024)
    long = run(seed=1) | dict(curves={'loss': [[i, 1.0] for i in range(1000)]})
    with pytest.raises(OSError, match=r'the row was not added to.*rows\.jsonl'):
        append(small_disk, long)
    assert [row['identity']['seed'] for row in read(small_disk)] == [0]
    filler.unlink()
    append(small_disk, long)
    assert [row['identity']['seed'] for row in read(small_disk)] == [0, 1]
    assert not (small_disk / rows.DAMAGED).exists()
