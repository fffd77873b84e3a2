"""hotcoco's precision and recall are pycocotools', and it is faster."""

import contextlib
import copy
import io
import json
import time

import coco_files
import numpy as np
import pytest
from mmengine.registry import METRICS as METRICS_OF_MMENGINE
from pycocotools.cocoeval import COCOeval

pytest.importorskip('hotcoco', reason="hotcoco is missing: pip install -e '.[test]'")

from hybrid_backbones.benchmark.intervals import METRICS, AveragePrecision
from hybrid_backbones.engine.coco_evaluation import FastCOCOeval


def both(truth: dict, results: list[dict], kind: str, **params) -> tuple[COCOeval, FastCOCOeval]:
    """Evaluations by pycocotools and hotcoco with the given parameters."""
    evaluations = []
    for evaluator in (COCOeval, FastCOCOeval):
        evaluation = evaluator(*coco_files.load(copy.deepcopy(truth), results), kind)
        vars(evaluation.params).update(params)
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        evaluations.append(evaluation)
    return tuple(evaluations)


def assert_equal(plain: COCOeval, fast: FastCOCOeval) -> None:
    np.testing.assert_allclose(fast.stats, plain.stats, rtol=0, atol=1e-9)
    for key in ('precision', 'recall', 'scores'):
        np.testing.assert_allclose(fast.eval[key], plain.eval[key], rtol=0, atol=1e-9, err_msg=key)


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
@pytest.mark.parametrize('ties', [False, True])
def test_equal_to_pycocotools(kind, ties):
    for seed in range(10):
        assert_equal(*both(*coco_files.draw(seed, images=1 + seed, ties=ties), kind))


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_equal_with_the_parameters_of_mmdet(kind):
    truth, results = coco_files.draw(5, images=3, categories=2, objects=120)
    params = dict(maxDets=[100, 300, 1000], catIds=[3, 1], imgIds=[1, 3], iouThrs=np.linspace(0.5, 0.95, 10))
    assert_equal(*both(truth, results, kind, **params))
    assert_equal(*both(truth, results, kind, **params, useCats=0))


def test_equal_where_an_object_has_the_id_zero():
    truth, results = coco_files.draw(51)
    truth['annotations'][0]['id'] = 0
    assert_equal(*both(truth, results, 'bbox'))


def test_its_matches_give_the_same_intervals():
    plain, fast = both(*coco_files.draw(2, ties=True), 'segm')
    counts = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), size=20)
    for metric in METRICS:
        first, second = (AveragePrecision.from_coco(e, metric=metric).scores(counts) for e in (plain, fast.fast))
        np.testing.assert_array_equal(first, second, err_msg=metric)


def test_the_metric_equals_that_of_mmdet(tmp_path):
    truth, results = coco_files.draw(4, images=6)
    annotations = tmp_path / 'annotations.json'
    annotations.write_text(json.dumps(truth))
    config = dict(ann_file=str(annotations), metric=['bbox', 'segm'], classwise=True)
    name = 'hybrid_backbones.engine.coco_evaluation.CocoMetric'
    kinds = [dict(type=name), dict(type=name, fast=False), dict(type='mmdet.CocoMetric')]
    found = []
    for kind in kinds:
        metric = METRICS_OF_MMENGINE.build(dict(kind, **config))
        metric.dataset_meta = dict(classes=[category['name'] for category in truth['categories']])
        metric.process({}, [coco_files.detections(image['id'], results) for image in truth['images']])
        with contextlib.redirect_stdout(io.StringIO()):
            found.append(metric.evaluate(6))
    # AP of three classes, and the summaries of boxes and masks.
    assert len(found[0]) == 3 + 2 * 6
    # Classes without objects of a size have NaN.
    np.testing.assert_equal(found[0], found[2])
    np.testing.assert_equal(found[1], found[2])


@pytest.mark.slow
def test_masks_of_many_images_take_a_tenth_of_the_time():
    seconds = []
    for evaluator in (COCOeval, FastCOCOeval):
        evaluation = evaluator(*coco_files.load(*coco_files.draw(1, images=5000, categories=80, objects=7)), 'segm')
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.evaluate()
            evaluation.accumulate()
        seconds.append(time.perf_counter() - start)
    assert seconds[1] * 10 < seconds[0], seconds


def test_keypoints_are_for_pycocotools():
    with pytest.raises(ValueError, match="'keypoints': expected bbox or segm"):
        FastCOCOeval(iouType='keypoints')
