"""Overlap of rotated boxes against OpenCV's polygons and against exact cases."""

import math

import cv2
import mmcv.ops
import pytest
import torch


def random_boxes(count):
    return torch.cat([torch.rand(count, 2) * 20, torch.rand(count, 2) * 15 + 2, torch.rand(count, 1) * 7 - 3.5], dim=1)


def polygon_overlap(a, b, mode):
    rectangles = [((x, y), (w, h), math.degrees(angle)) for x, y, w, h, angle in (a, b)]
    polygon = cv2.rotatedRectangleIntersection(*rectangles)[1]
    common = 0 if polygon is None else cv2.contourArea(cv2.convexHull(polygon))
    return common / (a[2] * a[3] if mode == 'iof' else a[2] * a[3] + b[2] * b[3] - common)


@pytest.mark.parametrize('mode', ['iou', 'iof'])
def test_against_polygons(mode, device):
    a, b = random_boxes(25), random_boxes(25)
    ious = mmcv.ops.box_iou_rotated(a.to(device), b.to(device), mode).cpu()
    expected = torch.tensor([[polygon_overlap(x, y, mode) for y in b.tolist()] for x in a.tolist()])
    assert (expected > 0.1).sum() > 50
    torch.testing.assert_close(ious, expected, rtol=1e-3, atol=1e-3)
    aligned = mmcv.ops.box_iou_rotated(a.to(device), b.to(device), mode, aligned=True).cpu()
    torch.testing.assert_close(aligned, ious.diagonal())


def test_equal_boxes_overlap_wholly():
    """Corners that coincide are where rounding drops them, and with them most of the area."""
    boxes = random_boxes(500)
    boxes[:, :2] += 1000
    torch.testing.assert_close(mmcv.ops.box_iou_rotated(boxes, boxes, aligned=True), torch.ones(500))


def test_quarter_turns_are_axis_aligned_boxes():
    a, b = random_boxes(20), random_boxes(20)
    a[:, 4] = b[:, 4] = 0
    corners = [torch.cat([box[:, :2] - box[:, 2:4] / 2, box[:, :2] + box[:, 2:4] / 2], 1) for box in (a, b)]
    expected = mmcv.ops.bbox_overlaps(*corners)
    torch.testing.assert_close(mmcv.ops.box_iou_rotated(a, b), expected)
    turned = b[:, [0, 1, 3, 2, 4]] + torch.tensor([0, 0, 0, 0, math.pi / 2])
    torch.testing.assert_close(mmcv.ops.box_iou_rotated(a, turned), expected, rtol=1e-4, atol=1e-5)


def test_counter_clockwise_angles_are_negated():
    a, b = random_boxes(10), random_boxes(10)
    flip = torch.tensor([1, 1, 1, 1, -1])
    flipped = mmcv.ops.box_iou_rotated(a * flip, b * flip)
    assert torch.equal(mmcv.ops.box_iou_rotated(a, b, clockwise=False), flipped)
    assert not torch.allclose(mmcv.ops.box_iou_rotated(a, b), flipped)


def test_nothing_overlaps_nothing():
    assert mmcv.ops.box_iou_rotated(random_boxes(0), random_boxes(3)).shape == (0, 3)
    flat = torch.tensor([[5.0, 5, 0, 4, 0.3]])
    assert mmcv.ops.box_iou_rotated(flat, flat).item() == 0
    apart = torch.tensor([[0.0, 0, 2, 2, 0.3], [50, 0, 2, 2, 0.1]])
    assert mmcv.ops.box_iou_rotated(apart[:1], apart[1:]).item() == 0


def test_many_pairs_are_computed_in_parts(monkeypatch):
    a, b = random_boxes(9), random_boxes(11)
    whole = mmcv.ops.box_iou_rotated(a, b)
    monkeypatch.setattr('hybrid_backbones.compat.ops.rotated._CHUNK', 7)
    torch.testing.assert_close(mmcv.ops.box_iou_rotated(a, b), whole)
