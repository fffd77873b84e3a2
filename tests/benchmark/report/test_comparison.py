"""Which backbones a report distinguishes, and the answers that it begins with."""

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import pytest
from synthetic_rows import SETTINGS, run_row

from hybrid_backbones.benchmark.report import write_report
from hybrid_backbones.benchmark.report.answers import answers
from hybrid_backbones.benchmark.report.comparison import Comparison, noise_floor
from hybrid_backbones.benchmark.report.grouping import Results
from hybrid_backbones.benchmark.rows import Row

IMAGES = 200
# Of scores over images, in percent; large, so that only pairing distinguishes anything.
SPREAD = 20.0


@dataclass(frozen=True)
class MeanOfImages:
    """A score that is the mean of the images' own scores."""

    images: tuple[Hashable, ...]
    values: np.ndarray

    def scores(self, counts: np.ndarray) -> np.ndarray:
        return counts @ self.values / counts.sum(1)


def measured(
    scores: dict[str, list[float]], own: float = 1.0, images: int = IMAGES, **changes
) -> tuple[list[Row], dict]:
    """Rows with per-image scores, by backbone the score of each seed; `own` is the part that backbones do not share."""
    random = np.random.default_rng(0)
    shared = random.normal(0, SPREAD, images)
    rows, found = [], {}
    for name, seeds in scores.items():
        for seed, score in enumerate(seeds):
            values = shared + random.normal(0, own, images)
            values += score - values.mean()
            rows.append(run_row(name, SETTINGS[2], score, seed=seed, **changes))
            found[rows[-1]['id']] = {'mIoU': MeanOfImages(tuple(range(images)), values / 100)}
    return rows, found


def comparison(*arguments, **options) -> Comparison:
    (groups,) = Results(*measured(*arguments, **options)).groups.values()
    return Comparison(groups)


def ranks(compared: Comparison) -> list[tuple[str, int | None]]:
    return [(group.label, rank) for group, rank in compared.ranked()]


def test_backbones_closer_than_the_noise_share_a_rank():
    compared = comparison({'a': [42.1, 41.9], 'b': [41.8, 42.0], 'c': [38.0, 38.2], 'd': [38.0, 38.1]})
    assert ranks(compared) == [('a', 1), ('b', 1), ('c', 3), ('d', 3)]
    difference, width = compared.difference(*compared.known[:2])
    assert difference == pytest.approx(0.1)
    assert 0.1 < width < 1


def test_images_that_are_hard_for_all_cancel_out():
    own = {'a': [42.0, 42.0], 'b': [41.0, 41.0]}
    assert ranks(comparison(own, own=1.0)) == [('a', 1), ('b', 2)]
    assert ranks(comparison(own, own=20.0)) == [('a', 1), ('b', 1)]


def test_variance_over_seeds_counts():
    assert ranks(comparison({'a': [43.0, 41.0], 'b': [42.0, 40.0]})) == [('a', 1), ('b', 1)]
    assert ranks(comparison({'a': [42.1, 41.9], 'b': [41.1, 40.9]})) == [('a', 1), ('b', 2)]


def test_intervals_of_equal_backbones_include_zero_as_often_as_stated():
    """Two seeds of each of four backbones, whose true scores are equal: 5 % of their differences are significant."""
    random = np.random.default_rng(0)
    errors = []
    for _ in range(60):
        offsets = random.normal(0, 1, (4, 2))
        own = [random.normal(0, 5, (2, 50)) for _ in range(4)]
        shared = random.normal(0, SPREAD, 50)
        rows, found = [], {}
        for i in range(4):
            for seed in range(2):
                values = 50 + shared + own[i][0] + offsets[i, seed]
                rows.append(run_row(f'b{i}', SETTINGS[2], float(values.mean()), seed=seed))
                found[rows[-1]['id']] = {'mIoU': MeanOfImages(tuple(range(50)), values / 100)}
        compared = Comparison(next(iter(Results(rows, found).groups.values())))
        pairs = [(g, h) for i, g in enumerate(compared.known) for h in compared.known[:i]]
        errors += [compared.distinguished(g, h) for g, h in pairs]
    assert 0.02 < np.mean(errors) < 0.09


@pytest.mark.parametrize(
    ('scores', 'answer'),
    [
        ({'a': [42.1, 41.9], 'b': [38.2, 38.1], 'c': [38.0, 38.0]}, 'of these 3, a (mIoU 42.0 %).'),
        (
            {'a': [42.1, 41.9], 'b': [41.8, 42.0], 'c': [38.0, 38.2]},
            'of these 3, a (mIoU 42.0 %), or b, which is not distinguished from it.',
        ),
        (
            {'a': [42.1, 41.9], 'b': [41.8, 42.0], 'c': [41.9, 41.8], 'd': [43.0]},
            'of these 3, a (mIoU 42.0 %), or b and c, which are not distinguished from it. '
            'Cannot tell for 1 other (one seed).',
        ),
        (
            {'a': [42.0], 'b': [41.0]},
            'of these 2, cannot tell which is best (one seed each). The highest mIoU is that of a (42.0 %).',
        ),
        ({'a': [42.0]}, 'only a was measured (mIoU 42.0 %).'),
    ],
)
def test_answers(scores, answer):
    assert answers(Results(*measured(scores))) == [f'upernet, ade20k, 160k: {answer}']


def test_many_names_are_counted():
    (text,) = answers(Results(*measured({f'x_{i}': [42.1, 41.9] for i in range(12)})))
    assert text.count('x_') == 7
    assert 'and 5 others, which are not distinguished from it' in text


def test_without_per_image_results_nothing_is_distinguished():
    rows, images = measured({'a': [42.1, 41.9], 'b': [38.2, 38.1], 'c': [37.0]})
    (text,) = answers(Results(rows))
    assert 'cannot tell which is best (no per-image results: 2, one seed: 1)' in text
    # Those of one seed are not enough, and neither are those of other images.
    del images[rows[0]['id']]
    assert 'cannot tell' in answers(Results(rows, images))[0]
    rows, images = measured({'a': [42.1, 41.9], 'b': [38.2, 38.1]})
    others, more = measured({'c': [40.0, 40.1]}, images=IMAGES - 1)
    (groups,) = Results(rows + others, images | more).groups.values()
    assert Comparison(groups).reasons == {'c': 'other images'}


def test_noise_floor():
    text = noise_floor(comparison({'a': [43.0, 41.0], 'b': [42.0, 40.0], 'c': [40.0]}))
    assert text.startswith('Noise floor, the standard deviation of a score: 1.41 points over seeds, 1.')
    # SPREAD over the root of IMAGES.
    assert float(text.split(', ')[2].split()[0]) == pytest.approx(SPREAD / IMAGES**0.5, rel=0.15)
    assert noise_floor(Comparison(next(iter(Results([run_row()]).groups.values())))) == ''


def test_setting_without_scores_is_named_and_not_ranked_or_drawn(tmp_path):
    curves = {'loss': [[1, 2.0], [2, 1.0]]}
    rows = [run_row('cvt_13', SETTINGS[0], 0.4, metrics={'mask_AP': 0.4, 'box_AP': 0.3}, curves=curves)]
    rows += [run_row('moat_0', SETTINGS[2], 40.0, curves=curves)]
    results = Results(rows)
    assert results.families == ['moat']
    assert [setting.framework for setting in results.groups] == ['upernet']
    page, markdown, *others = write_report(rows, tmp_path, 'A title')
    assert [path.name for path in others] == ['report.csv', 'curves.png']
    text = markdown.read_text()
    assert text.count('mask-rcnn') == 1
    line = 'Left out of rankings and pictures, with scores below 0.5 %: mask-rcnn, coco, 1x.'
    assert line in text
    assert line in page.read_text()
    assert 'cvt\\_13' not in text


def test_report_starts_with_the_answers_and_has_ranks_and_intervals(tmp_path):
    rows, images = measured({'a': [42.1, 41.9], 'b': [41.8, 42.0], 'c': [38.0, 38.2]})
    page, markdown, *_ = write_report(rows, tmp_path, 'A title', images)
    lines = [line for line in markdown.read_text().splitlines() if line]
    assert lines[0] == '# A title'
    assert lines[1].startswith('- upernet, ade20k, 160k: of these 3, a (mIoU 42.0 %), or b, which is not')
    table = [line for line in lines if line.startswith('| 3 | c ')]
    assert len(table) == 1
    assert '−3.90 ± ' in table[0]
    assert page.read_text().index('class="answers"') < page.read_text().index('class="summary"')
