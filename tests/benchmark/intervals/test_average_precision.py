import contextlib
import io

import coco_files
import numpy as np
import pytest
from pycocotools.cocoeval import COCOeval

from hybrid_backbones.benchmark.intervals import METRICS, AveragePrecision, Detections, ap_interval

# Where pycocotools' summary has them.
SUMMARY = dict(AP=0, AP50=1, AP75=2, APs=3, APm=4, APl=5)


def evaluated(truth: dict, results: list[dict], kind: str, limits: tuple[int, int, int] = (1, 10, 100)) -> COCOeval:
    """pycocotools' evaluation, with at most as many detections as `limits` has; its summary is in `stats`."""
    evaluation = COCOeval(*coco_files.load(truth, results), kind)
    evaluation.params.maxDets = list(limits)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def copied(truth: dict, results: list[dict], counts: np.ndarray) -> tuple[dict, list[dict]]:
    """Files in which image i is there `counts[i]` times, under new ids."""
    drawn = dict(truth, images=[], annotations=[])
    found = []
    for image, count in zip(truth['images'], counts, strict=True):
        for _ in range(count):
            new = len(drawn['images']) + 1
            drawn['images'].append(dict(image, id=new))
            for annotation in truth['annotations']:
                if annotation['image_id'] == image['id']:
                    drawn['annotations'].append(dict(annotation, image_id=new, id=len(drawn['annotations']) + 1))
            found += [dict(result, image_id=new) for result in results if result['image_id'] == image['id']]
    return drawn, found


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
@pytest.mark.parametrize('ties', [False, True])
def test_point_estimates_equal_pycocotools(kind, ties):
    for seed in range(5):
        evaluation = evaluated(*coco_files.draw(seed, ties=ties), kind)
        for metric, place in SUMMARY.items():
            scored = AveragePrecision.from_coco(evaluation, metric=metric)
            value = scored.scores(np.ones((1, len(scored.images)), int))[0]
            assert abs(value - evaluation.stats[place]) < 1e-12, (seed, metric)


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_redraws_equal_pycocotools_on_copied_images(kind):
    truth, results = coco_files.draw(7)
    original = evaluated(truth, results, kind)
    counts = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), size=4)
    scores = {name: AveragePrecision.from_coco(original, metric=name).scores(counts) for name in METRICS}
    for number, redraw in enumerate(counts):
        stats = evaluated(*copied(truth, results, redraw), kind).stats
        for name, place in SUMMARY.items():
            # pycocotools has -1 where there are no objects.
            expected = np.nan if stats[place] == -1 else stats[place]
            np.testing.assert_allclose(scores[name][number], expected, rtol=0, atol=1e-12, err_msg=name)
    assert np.isfinite(np.array([*scores.values()])).mean() > 0.9


def test_the_batches_of_redraws_change_nothing(monkeypatch):
    scored = AveragePrecision.from_coco(evaluated(*coco_files.draw(3), 'bbox'))
    counts = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), size=50)
    together = scored.scores(counts)
    monkeypatch.setattr('hybrid_backbones.benchmark.intervals.average_precision._BATCH', 1)
    np.testing.assert_array_equal(together, scored.scores(counts))


def test_at_most_as_many_detections_count_as_in_pycocotools():
    truth, results = coco_files.draw(5, images=3, categories=1, objects=120)
    # As MMDetection sets it: AP counts 100 detections, the other metrics 1000.
    evaluation = evaluated(truth, results, 'bbox', limits=(100, 300, 1000))
    precision = evaluation.eval['precision'][..., 0, 0, :]
    assert (precision[..., 0] != precision[..., 2]).any()
    for metric, place in SUMMARY.items():
        value = AveragePrecision.from_coco(evaluation, metric=metric).scores(np.ones((1, 3), int))[0]
        assert abs(value - evaluation.stats[place]) < 1e-12, metric


def test_a_detector_that_finds_nothing_has_no_precision():
    nothing = Detections(*np.zeros((2, 0), int), np.zeros(0), *np.zeros((2, 10, 0), bool))
    scored = AveragePrecision((1, 2), np.array([[2], [0]]), nothing, np.linspace(0, 1, 101))
    np.testing.assert_array_equal(scored.scores(np.array([[1, 1], [2, 0], [0, 2]])), [0, 0, np.nan])


def test_categories_without_objects_in_a_redraw_are_left_out():
    # The first image has the object of category 0, found; the second that of category 1, missed.
    hit = np.ones((10, 1), bool)
    found = Detections(np.array([0]), np.array([0]), np.array([0.9]), hit, ~hit)
    scored = AveragePrecision((1, 2), np.eye(2), found, np.linspace(0, 1, 101))
    np.testing.assert_allclose(scored.scores(np.array([[1, 1], [2, 0], [0, 2]])), [0.5, 1, 0], rtol=0, atol=1e-15)


def test_mistakes_are_named():
    evaluation = COCOeval(*coco_files.load(*coco_files.draw(0)), 'bbox')
    with pytest.raises(ValueError, match=r'evaluate\(\) first'):
        ap_interval(evaluation)
    with pytest.raises(ValueError, match=r"'AP95', expected one of AP, AP50"):
        ap_interval(evaluation, metric='AP95')
