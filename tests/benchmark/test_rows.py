"""Rows of results: nothing is lost, nothing is edited, and every line follows the schema."""

import json
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


def test_a_row_comes_back_as_it_was(tmp_path):
    row = append(tmp_path, run())
    assert read(tmp_path) == [row]
    assert row['metrics'] == {'mIoU': 12.5}


def test_a_retried_run_replaces_its_failure_and_code_that_moves_on_does_not_make_it_another(tmp_path):
    append(tmp_path, run('failed'))
    append(tmp_path, run('killed', seed=1))
    append(tmp_path, run('finished', commit='def'))
    # Of a process that had begun before the other finished.
    append(tmp_path, run('killed'))
    assert [(row['identity']['seed'], row['state']) for row in read(tmp_path)] == [(1, 'killed'), (0, 'finished')]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(metrics={'AP': 3.0}), r"\$\.metrics: 'AP' does not match"),
        (dict(metrics={'mIoU': 101.0}), r'\$\.metrics\.mIoU: 101\.0 is greater than the maximum of 100'),
        (dict(state='done'), r"\$\.state: 'done' is not one of"),
        (dict(identity={}), r"\$\.identity: 'backbone' is a required property"),
        (dict(note='x'), r"'note' was unexpected"),
        (dict(curves={'loss': [[1, 2, 3]]}), r'\$\.curves\.loss\[0\]: \[1, 2, 3\] is too long'),
    ],
)
def test_what_does_not_follow_the_schema_is_not_written(tmp_path, change, message):
    with pytest.raises(ResultsError, match=message):
        append(tmp_path, run() | change)
    assert read(tmp_path) == []


def test_a_cut_line_is_kept_aside_and_nothing_else_is_lost(tmp_path, caplog):
    append(tmp_path, run())
    whole = (tmp_path / rows.FILE).read_bytes()
    cut = whole[: len(whole) // 2]
    (tmp_path / rows.FILE).write_bytes(whole + cut)  # the machine went down in the middle of a line
    append(tmp_path, run(seed=1))
    assert [row['identity']['seed'] for row in read(tmp_path)] == [0, 1]
    (kept,) = [json.loads(line) for line in (tmp_path / rows.DAMAGED).read_text().splitlines()]
    assert kept['line'] == cut.decode()
    assert kept['problem'].startswith('no JSON')
    assert cut not in (tmp_path / rows.FILE).read_bytes().splitlines()
    assert [row['identity']['seed'] for row in read(tmp_path)] == [0, 1]


def test_an_edited_row_does_not_count(tmp_path):
    append(tmp_path, run())
    path = tmp_path / rows.FILE
    path.write_text(path.read_text().replace('12.5}', '52.5}'))
    assert read(tmp_path) == []
    assert '52.5}' in (tmp_path / rows.DAMAGED).read_text().replace('\\"', '"')


def test_another_version_is_an_error_that_changes_nothing(tmp_path):
    append(tmp_path, run())
    path = tmp_path / rows.FILE
    path.write_text(path.read_text() + '{"schema": 2, "whatever": 1}\nno row\n')
    before = path.read_bytes()
    with pytest.raises(
        ResultsError, match=r'rows\.jsonl, line 2: schema version 2, and this is version 1; use another'
    ):
        read(tmp_path)
    assert path.read_bytes() == before
    assert not (tmp_path / rows.DAMAGED).exists()


def test_two_finished_rows_of_one_identity_are_an_error_that_names_both(tmp_path):
    append(tmp_path, run())
    append(tmp_path, run(seed=1))
    append(tmp_path, run(commit='def'))
    with pytest.raises(ResultsError, match=r'lines 1 and 3 are finished rows of one identity, cvt_13, upernet'):
        read(tmp_path)


def _append_many(folder: Path, first: int) -> None:
    for seed in range(first, first + 20):
        append(folder, run(seed=seed))


def test_processes_that_write_at_once_do_not_mix_their_lines(tmp_path):
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


def test_a_full_disk_loses_no_row_and_leaves_no_half_of_one(small_disk):
    append(small_disk, run())
    # More than fits: the page that the file has is filled, then there is no other.
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
