"""Candidates and the score of the probe for detection."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from hybrid_backbones.benchmark.intervals import interval, paired_difference
from hybrid_backbones.benchmark.probes import Features, FeaturesError, compute_features, detection, probe_detection

from .conftest import SUBJECT, shapes_config


@pytest.fixture(scope='module')
def features(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Features]:
    folder: Path = tmp_path_factory.mktemp('features')
    cfg = shapes_config('maskrcnn')
    return {split: compute_features(cfg, split, SUBJECT, folder) for split in ('train', 'val')}


def test_the_probe_learns_and_is_scored_by_image(features):
    train, val = features['train'], features['val']
    untrained, trained = (probe_detection(train, val, iterations=n) for n in (1, 40))
    assert trained.boxes.images == val.images
    assert interval(trained.boxes, redraws=50).value > interval(untrained.boxes, redraws=50).value
    assert np.isfinite(paired_difference(trained.boxes, untrained.boxes, redraws=50).low)
    assert len(trained.logme) == 4 and np.isfinite(trained.logme).all()


def test_right_scores_give_full_precision(features):
    val = features['val']
    objects = [detection.objects_of(val, index) for index in range(len(val))]
    found = [(boxes, classes, torch.ones(len(boxes))) for boxes, classes in objects]
    assert interval(detection._average_precision(val, found), redraws=50).value == pytest.approx(1)


def test_candidates_have_the_classes_of_what_they_fit():
    boxes = torch.tensor([[10.0, 10, 50, 60], [70, 20, 110, 80]])
    found = detection.candidates(boxes, torch.tensor([2, 0]), (100, 120), 3, torch.Generator().manual_seed(0))
    assert torch.equal(found.boxes[:2], boxes) and found.classes[:2].tolist() == [2, 0]
    torch.testing.assert_close(found.ious, box_iou(found.boxes, boxes).amax(1))
    assert ((found.classes == 3) == (found.ious < 0.5)).all()
    assert (found.boxes >= 0).all() and (found.boxes[:, 2:] <= torch.tensor([120, 100])).all()
    assert (found.ious[2:10] > 0.2).all() and (found.ious[10:] < 0.3).all() and len(found.boxes) > 10


def test_an_image_without_objects_has_background_only():
    none = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    found = detection.candidates(*none, (100, 120), 3, torch.Generator().manual_seed(0))
    assert len(found.boxes) == 8 and (found.classes == 3).all() and (found.ious == 0).all()


def test_boxes_are_those_of_the_resized_image(features):
    val = features['val']
    information = val.dataset.get_data_info(0)
    boxes, _ = detection.objects_of(val, 0)
    expected = torch.tensor([part['bbox'] for part in information['instances']])
    torch.testing.assert_close(boxes, expected * val.entries[0].size[1] / information['width'], rtol=1e-2, atol=1)


def test_no_objects_are_an_error(features, monkeypatch):
    none = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    monkeypatch.setattr(detection, 'objects_of', lambda features, index: none)
    with pytest.raises(FeaturesError, match='no objects in 4 images'):
        probe_detection(features['train'], features['val'])
