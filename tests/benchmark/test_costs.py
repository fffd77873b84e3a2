"""Runs take cost, speed and memory from the profile of their model, whenever that was measured."""

from pathlib import Path

import pytest
from synthetic_rows import ENVIRONMENT, cost, profile_row, run_row, speed

from hybrid_backbones.benchmark.costs import PARTS, with_costs
from hybrid_backbones.benchmark.report import write_report
from hybrid_backbones.benchmark.report.check import compare_with_baseline
from hybrid_backbones.benchmark.rows import append, read

RESULTS = Path(__file__).parents[2] / 'docs' / 'results'
MODEL = dict(framework='mask-rcnn', config_sha256='cd' * 32, precision='bf16')
MEASURED = dict(cost=cost(45, 250), speed=speed(0.05), memory=dict(inference_mib=1000.0, training_mib=8000.0))


def model_profile(**changes):
    return profile_row(side=800, **MODEL | MEASURED | changes)


def test_a_run_that_finished_before_its_profile_is_completed_later(tmp_path):
    run = run_row(environment=dict(ENVIRONMENT, device='CPU of the run'))
    append(tmp_path, run)
    append(tmp_path, model_profile(state='failed', reason='killed'))
    assert not with_costs(read(tmp_path))[0].get('cost')
    append(tmp_path, model_profile())
    (joined,) = [row for row in with_costs(read(tmp_path)) if row['record'] == 'run']
    assert {key: joined[key] for key in MEASURED} == MEASURED
    assert joined['profiled_in'] == ENVIRONMENT != joined['environment']
    _, markdown, table, *_ = write_report(read(tmp_path), tmp_path / 'report', 'A title')
    assert '| 250.0 | 50.0 | 1000.0 | 8000.0 | 45.0 |' in markdown.read_text()
    assert '250000000000' in table.read_text().splitlines()[1]
    # A baseline whose runs have their costs themselves agrees.
    assert compare_with_baseline(read(tmp_path), [run | MEASURED, model_profile()]) == []


@pytest.mark.parametrize(
    'other',
    [dict(config_sha256='0' * 64), dict(options=dict(window_size=7)), dict(precision='fp32'), dict(origin='converted')],
    ids=str,
)
def test_profiles_of_other_models_are_not_used(other):
    assert 'cost' not in with_costs([run_row(), model_profile(**other)])[0]


def test_costs_of_the_run_itself_are_kept():
    own = cost(1, 2)
    joined = with_costs([run_row(cost=own), model_profile()])[0]
    assert (joined['cost'], joined['speed']) == (own, MEASURED['speed'])


@pytest.mark.parametrize('name', ['proxy', 'smoke'])
def test_published_rows_are_valid_and_get_the_costs_that_they_were_stored_with(name, tmp_path):
    (tmp_path / 'rows.jsonl').write_bytes((RESULTS / name / 'rows.jsonl').read_bytes())
    rows = read(tmp_path)
    assert not (tmp_path / 'damaged.jsonl').exists()
    without = [{k: v for k, v in row.items() if row['record'] == 'profile' or k not in PARTS} for row in rows]
    joined = {row['id']: {k: v for k, v in row.items() if k != 'profiled_in'} for row in with_costs(without)}
    # Rows of later sweeps are stored without the costs of their runs.
    stored = [row for row in rows if row['record'] == 'profile' or any(part in row for part in PARTS)]
    assert [joined[row['id']] for row in stored] == stored
