"""Files of per-image results: exact, small, and those of their row."""

import contextlib
import io
import json

import coco_files
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import METRICS
from pycocotools.cocoeval import COCOeval
from synthetic_rows import run_row

from hybrid_backbones.benchmark.images import file_of, images_of, limits_in_percent, read_images, write_images
from hybrid_backbones.benchmark.intervals import AveragePrecision, MeanIoU
from hybrid_backbones.benchmark.rows import ResultsError
from hybrid_backbones.benchmark.sweep.evaluators import record_images
from hybrid_backbones.checkpoints.download import sha256


def average_precision(seed: int = 0, **changes) -> AveragePrecision:
    evaluation = COCOeval(*coco_files.load(*coco_files.draw(seed, **changes)), 'bbox')
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
    return AveragePrecision.from_coco(evaluation)


def mean_iou(images: int = 100, classes: int = 150) -> MeanIoU:
    random = np.random.default_rng(0)
    unions = random.integers(0, 50_000, (images, classes)) * (random.random((images, classes)) < 0.06)
    intersections = (unions * random.random((images, classes))).astype(int)
    return MeanIoU(tuple(f'image_{i:04}' for i in range(images)), intersections, unions)


@pytest.mark.parametrize('make', [average_precision, lambda: average_precision(3, ties=True), mean_iou])
def test_scores_of_redraws_are_those_before_writing(make, tmp_path):
    metric = make()
    write_images(tmp_path / 'x.npz', {'mIoU': metric})
    found = read_images(tmp_path / 'x.npz')['mIoU']
    counts = np.random.default_rng(1).integers(0, 3, (20, len(metric.images)))
    assert found.images == metric.images
    np.testing.assert_array_equal(found.scores(counts), metric.scores(counts))


def test_hundred_images_take_tens_of_kilobytes(tmp_path):
    write_images(tmp_path / 'miou.npz', {'mIoU': mean_iou()})
    write_images(tmp_path / 'ap.npz', {'box_AP': average_precision(images=100, categories=20, objects=7)})
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 50_000


def test_file_of_another_run_is_an_error(tmp_path):
    row = run_row(metrics={'mIoU': 40.0})
    assert images_of(tmp_path, row) == {}
    path = file_of(tmp_path, row['id'])
    write_images(path, {'mIoU': mean_iou()})
    row['images_sha256'] = sha256(path)
    assert images_of(tmp_path, row).keys() == {'mIoU'}
    write_images(path, {'mIoU': mean_iou(images=99)})
    with pytest.raises(ResultsError, match='is not the file that the row was written with; restore it'):
        images_of(tmp_path, row)
    path.unlink()
    with pytest.raises(ResultsError, match='is missing; restore it'):
        images_of(tmp_path, row)


def test_interval_of_one_image_or_of_no_objects_is_unknown():
    areas = np.ones((1, 3), int)
    assert limits_in_percent(MeanIoU(('a',), areas, areas)) is None
    assert limits_in_percent(MeanIoU(('a', 'b'), np.zeros((2, 3), int), np.zeros((2, 3), int))) is None
    low, high = limits_in_percent(mean_iou())
    assert 0 < low < high < 100


@pytest.mark.parametrize('name', ['CocoMetric', 'hybrid_backbones.engine.coco_evaluation.CocoMetric'])
def test_metric_of_mmdet_also_writes_what_each_image_contributes(name, tmp_path):
    if name.startswith('hybrid'):
        pytest.importorskip('hotcoco', reason="hotcoco is missing: pip install -e '.[test]'")
    truth, results = coco_files.draw(4, images=6)
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    evaluator = dict(type=name, ann_file=str(tmp_path / 'truth.json'), metric=['bbox', 'segm'])
    cfg = record_images(Config(dict(val_evaluator=evaluator)), tmp_path / 'images.npz')
    metric = METRICS.build(cfg.val_evaluator)
    metric.dataset_meta = dict(classes=[category['name'] for category in truth['categories']])
    metric.process({}, [coco_files.detections(image['id'], results) for image in truth['images']])
    with contextlib.redirect_stdout(io.StringIO()):
        logged = metric.evaluate(6)
    found = read_images(tmp_path / 'images.npz')
    assert found.keys() == {'box_AP', 'mask_AP'}
    for name, key in (('box_AP', 'coco/bbox_mAP'), ('mask_AP', 'coco/segm_mAP')):
        assert found[name].scores(np.ones((1, 6)))[0] == pytest.approx(logged[key], abs=5.1e-4)
    assert logged['coco/bbox_mAP'] > 0


def test_other_evaluators_are_left_alone(tmp_path):
    for evaluator in (dict(type='LVISMetric'), [dict(type='CocoMetric')]):
        cfg = record_images(Config(dict(val_evaluator=evaluator)), tmp_path)
        assert cfg.val_evaluator == evaluator
