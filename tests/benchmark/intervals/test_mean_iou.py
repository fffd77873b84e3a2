import contextlib
import io

import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric

from hybrid_backbones.benchmark.intervals import MeanIoU, class_areas, miou_interval

CLASSES = 6


def label_maps(seed: int, images: int = 5) -> list[tuple[np.ndarray, np.ndarray]]:
    """Truth, with ignored pixels, and predictions; class 5 is in neither, class 4 only predicted."""
    rng = np.random.default_rng(seed)
    maps = []
    for _ in range(images):
        shape = tuple(rng.integers(20, 40, 2))
        truth = rng.integers(4, size=shape)
        prediction = np.where(rng.random(shape) < 0.7, truth, rng.integers(5, size=shape))
        maps.append((np.where(rng.random(shape) < 0.1, 255, truth), prediction))
    return maps


def by_mmseg(maps: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """MMSegmentation's mIoU before it is rounded to two digits."""
    parts = [
        IoUMetric.intersect_and_union(torch.from_numpy(prediction), torch.from_numpy(truth), CLASSES, 255)
        for truth, prediction in maps
    ]
    metrics = IoUMetric.total_area_to_metrics(*(sum(part) for part in zip(*parts, strict=True)), ['mIoU'])
    return float(np.nanmean(np.asarray(metrics['IoU'], np.float64)))


def metric(maps: list[tuple[np.ndarray, np.ndarray]]) -> MeanIoU:
    areas = [class_areas(truth, prediction, classes=CLASSES) for truth, prediction in maps]
    return MeanIoU(tuple(range(len(maps))), *(np.stack(part) for part in zip(*areas, strict=True)))


def test_scores_of_redraws_equal_mmsegmentation():
    maps = label_maps(0)
    counts = np.concatenate([np.ones((1, 5), int), np.random.default_rng(0).multinomial(5, np.full(5, 0.2), size=5)])
    expected = [by_mmseg([pair for pair, n in zip(maps, row, strict=True) for _ in range(n)]) for row in counts]
    # MMSegmentation divides in float32.
    np.testing.assert_allclose(metric(maps).scores(counts), expected, rtol=0, atol=1e-7)


def test_an_interval_of_miou_holds_the_metric_as_the_evaluator_prints_it():
    maps = label_maps(1, images=20)
    found = miou_interval([class_areas(*pair, classes=CLASSES) for pair in maps], redraws=200)
    evaluator = IoUMetric()
    evaluator.dataset_meta = dict(classes=[str(i) for i in range(CLASSES)])
    for truth, prediction in maps:
        sample = dict(
            pred_sem_seg=dict(data=torch.from_numpy(prediction)[None]),
            gt_sem_seg=dict(data=torch.from_numpy(truth)[None]),
        )
        evaluator.process({}, [sample])
    with contextlib.redirect_stdout(io.StringIO()):
        printed = evaluator.evaluate(len(maps))['mIoU']
    assert round(100 * found.value, 2) == printed
    assert found.low < found.value < found.high


def test_without_any_labelled_pixel_there_is_no_score():
    areas = MeanIoU((0, 1), np.zeros((2, 3)), np.zeros((2, 3)))
    assert np.isnan(areas.scores(np.ones((1, 2), int))).all()


def test_mistakes_are_named():
    labels = np.zeros((4, 4), int)
    with pytest.raises(ValueError, match=r'different shapes: \(4, 4\) and \(4, 5\)'):
        class_areas(labels, np.zeros((4, 5), int), classes=2)
    with pytest.raises(ValueError, match='prediction has labels from 2 to 2, expected 0 to 1'):
        class_areas(labels, labels + 2, classes=2)
    with pytest.raises(ValueError, match=r'with 3 images, got \(2, 5\) and \(2, 5\)'):
        MeanIoU((1, 2, 3), np.zeros((2, 5)), np.zeros((2, 5)))
