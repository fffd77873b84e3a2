import pytest
from synthetic_rows import cost, profile_row, run_row, speed

from hybrid_backbones.benchmark.report.check import Tolerances, compare_with_baseline


def measured(score: float = 40.0, **changes):
    parts = dict(cost=cost(45, 250), memory=dict(inference_mib=1000, training_mib=8000), speed=speed(0.05))
    return run_row(score=score, **{**parts, **changes})


def test_rows_within_tolerance_pass():
    assert compare_with_baseline([measured()], [measured()]) == []
    near = measured(40.5, memory=dict(inference_mib=1099, training_mib=7201), speed=speed(5.0))
    assert compare_with_baseline([near], [measured()]) == []


def test_commit_is_ignored():
    assert compare_with_baseline([measured(commit='ffff+')], [measured()]) == []


@pytest.mark.parametrize('score', [39.4, 40.6])
def test_metrics_may_deviate_in_neither_direction(score):
    problems = compare_with_baseline([measured(score)], [measured()])
    assert [problem.split(': ')[1].split(' is ')[0] for problem in problems] == ['mask_AP', 'box_AP']
    assert 'cvt_13, mask-rcnn, coco, 1x' in problems[0]
    assert f'{score - 40:+.2f} points from 40.00; 0.5 are allowed' in problems[0]
    assert compare_with_baseline([measured(score)], [measured()], Tolerances(points=1)) == []


def test_macs_must_be_equal():
    other = dict(cost(45, 250), macs=250_000_000_001)
    (problem,) = compare_with_baseline([measured(cost=other)], [measured()])
    assert 'cost: macs are 250,000,000,001; the baseline has 250,000,000,000' in problem


def test_costs_of_another_size_are_a_deviation():
    (problem,) = compare_with_baseline([measured(cost=cost(45, 100, 512))], [measured()])
    assert '512×512 pixels, the baseline of 800×800' in problem


def test_memory_tolerance_is_relative_and_latency_optional():
    slow = measured(memory=dict(inference_mib=1200, training_mib=8000), speed=speed(0.08))
    (problem,) = compare_with_baseline([slow], [measured()])
    assert '(inference), MiB is 1200, +20.0% against 1000; 10% are allowed' in problem
    assert len(compare_with_baseline([slow], [measured()], Tolerances(latency=0.5))) == 2


def test_missing_rows_and_parts():
    (problem,) = compare_with_baseline([], [measured()])
    assert problem.endswith('missing')
    (problem,) = compare_with_baseline([measured(config_sha256='0' * 64)], [measured()])
    assert 'with another config: renew' in problem
    bare = run_row(score=None)
    assert sum('missing' in problem for problem in compare_with_baseline([bare], [measured()])) == 5


def test_failures():
    failed = run_row(score=None, state='failed', reason='out of memory')
    (problem,) = compare_with_baseline([failed], [measured()])
    assert problem.endswith('failed: out of memory')
    new = run_row('moat_0', score=None, state='killed', reason=None)
    (problem,) = compare_with_baseline([measured(), new], [measured()])
    assert problem.endswith('killed: no reason given')
    # A job that failed in the baseline may fail.
    assert compare_with_baseline([measured(), new], [measured(), new]) == []


def test_quoted_rows_are_not_compared():
    quoted = measured(origin='quoted')
    assert 'missing' in compare_with_baseline([quoted], [measured()])[0]
    assert 'nothing to compare with' in compare_with_baseline([measured()], [quoted])[0]


def test_profiles_are_compared():
    old, new = (profile_row(cost=cost(18, macs, 512)) for macs in (40, 41))
    assert 'cvt_13, profile, 512x512: cost: macs' in compare_with_baseline([new], [old])[0]


@pytest.mark.parametrize('value', [-1, float('nan')])
def test_invalid_tolerance_is_an_error(value):
    with pytest.raises(ValueError, match='tolerance of memory'):
        Tolerances(memory=value)
