"""What is verified of a row before its run begins again; the rest is in test_sweep.py."""

import numpy as np
import pytest
from synthetic_rows import SETTINGS, run_row

from hybrid_backbones.benchmark.images import file_of, limits_in_percent, write_images
from hybrid_backbones.benchmark.intervals import MeanIoU
from hybrid_backbones.benchmark.rows import ResultsError
from hybrid_backbones.benchmark.sweep.jobs import Job
from hybrid_backbones.benchmark.sweep.verify import rows_with_jobs, verify
from hybrid_backbones.checkpoints.download import sha256

NO_FINGERPRINT = 'it has no fingerprint: it is of an earlier version, or the run was resumed at its beginning'
AREAS = MeanIoU(tuple('abcd'), np.array([[40], [50], [30], [60]]), np.full((4, 1), 100))


@pytest.mark.parametrize(
    ('claimed', 'widened', 'problems'),
    [
        (45.0, 0.0, []),
        (46.0, 0.0, ['mIoU of the per-image results is 45.00; the row has 46.00']),
        (45.0, 1.0, ['the interval of mIoU is']),
    ],
)
def test_scores_and_intervals_follow_from_the_per_image_results(claimed, widened, problems, tmp_path):
    low, high = limits_in_percent(AREAS)
    row = run_row(setting=SETTINGS[2], score=claimed, intervals={'mIoU': [low - widened, high]})
    path = file_of(tmp_path, row['id'])
    write_images(path, {'mIoU': AREAS})
    row['images_sha256'] = sha256(path)
    found = verify(tmp_path, row, Job('run', row['identity']), threads=1)
    assert found[-1] == NO_FINGERPRINT
    assert len(found) == 1 + len(problems)
    assert all(text.startswith(start) for text, start in zip(found, problems, strict=False))


def test_rows_of_another_spec_are_named():
    rows = [run_row(), run_row(seed=1), run_row(seed=2, state='failed', reason='x')]
    jobs = [Job('run', {k: v for k, v in row['identity'].items() if k != 'commit'}) for row in rows[1:]]
    assert [row['id'] for row, _ in rows_with_jobs(rows, jobs, None)] == [rows[1]['id']]
    assert [job.id for _, job in rows_with_jobs(rows, jobs, [rows[1]['id']])] == [rows[1]['id']]
    with pytest.raises(ResultsError, match=rf'has the id {rows[0]["id"]}; 1 of the 2 .* of this spec: {rows[1]["id"]}'):
        rows_with_jobs(rows, jobs, [rows[0]['id']])
    with pytest.raises(ResultsError, match='none of the 2 finished runs is of the spec'):
        rows_with_jobs(rows, [], None)
