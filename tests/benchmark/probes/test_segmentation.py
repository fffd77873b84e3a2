"""The probes learn what the features hold, and their head is DINOv3's."""

import numpy as np
import pytest
import torch
from torch import nn

from hybrid_backbones.benchmark.intervals import interval
from hybrid_backbones.benchmark.probes import FeaturesError, probe_segmentation
from hybrid_backbones.benchmark.probes.segmentation import (
    LinearHead,
    label_map,
    sample_vectors,
)
from hybrid_backbones.benchmark.probes.training import learning_rate_factor


def test_probes_learn_more_than_the_most_frequent_class(segmentation_features):
    train, val = segmentation_features['train'], segmentation_features['val']
    probe = probe_segmentation(train, val, iterations=20)
    classes = len(val.dataset.metainfo['classes'])
    for metric in (probe.linear, probe.neighbours):
        assert metric.images == val.images
        assert interval(metric, redraws=50).value > 1 / classes
    assert len(probe.logme) == 4 and np.isfinite(probe.logme).all()


def test_equal_seeds_give_equal_scores(segmentation_features):
    train, val = segmentation_features['train'], segmentation_features['val']
    first, second = (probe_segmentation(train, val, iterations=2) for _ in range(2))
    assert (first.linear.intersections == second.linear.intersections).all()


def test_head_equals_batch_norm_and_convolution_of_a_batch():
    images = torch.randn(3, 6, 5, 4)
    head = LinearHead(6, 2)
    head.dropout.p = 0.0
    plain = nn.Sequential(nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1))
    plain[1].load_state_dict(head.conv.state_dict())
    torch.testing.assert_close(torch.stack(head([[image] for image in images])), plain(images))
    torch.testing.assert_close(head.norm.running_var, plain[0].running_var)


def test_learning_rate_rises_and_falls():
    factors = [learning_rate_factor(step, 400) for step in range(400)]
    assert np.argmax(factors) == 15 and factors[0] < 1e-5 and factors[-1] < 1e-5
    assert factors[200] == pytest.approx(0.5, abs=0.01)


def test_sampled_labels_are_those_at_the_vectors(segmentation_features):
    train = segmentation_features['train']
    labels = [label_map(train, index) for index in range(len(train))]
    vectors, found = sample_vectors(train, labels, [0], 200, 255, 0)
    assert len(vectors) == len(found) == 200
    # Where a label map is its own first channel, vectors hold their labels.
    height, width = train.level(0, 0).shape[1:]
    stride = labels[0].shape[0] // height
    at_centres = labels[0][stride // 2 :: stride, stride // 2 :: stride][:height, :width]
    cells = train.level(0, 0).flatten(1).T.numpy()
    for vector, label in zip(vectors[:20], found[:20], strict=True):
        which = np.flatnonzero((cells == vector).all(1))
        assert label in at_centres.ravel()[which]


def test_labels_of_one_class_are_an_error(segmentation_features, monkeypatch):
    from hybrid_backbones.benchmark.probes import segmentation

    monkeypatch.setattr(segmentation, 'label_map', lambda features, index: np.zeros((8, 8), np.uint8))
    with pytest.raises(FeaturesError, match='labels of 1 class'):
        probe_segmentation(segmentation_features['train'], segmentation_features['val'])
