"""Suppression and overlaps of axis-aligned boxes against their definitions, written as loops."""

import math

import mmcv.ops
import numpy as np
import pytest
import torch


def random_boxes(count, dtype=torch.float32, size=40):
    first = torch.rand(count, 2, dtype=dtype) * size
    return torch.cat([first, first + 1 + torch.rand(count, 2, dtype=dtype) * size], dim=1)


def iou_of(a, b, offset, mode='iou'):
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + offset, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + offset, 0)
    area_a, area_b = ((box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b))
    return width * height / (area_a if mode == 'iof' else area_a + area_b - width * height)


def greedy(boxes, scores, threshold, offset):
    keep = []
    for index in scores.argsort(descending=True).tolist():
        if all(iou_of(boxes[index].tolist(), boxes[other].tolist(), offset) <= threshold for other in keep):
            keep.append(index)
    return keep


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_nms_is_greedy_suppression(offset, dtype, device):
    boxes, scores = random_boxes(120, dtype).to(device), torch.rand(120, dtype=dtype, device=device)
    dets, keep = mmcv.ops.nms(boxes, scores, 0.4, offset=offset)
    assert keep.tolist() == greedy(boxes, scores, 0.4, offset)
    assert torch.equal(dets, torch.cat([boxes[keep], scores[keep, None]], 1))


def test_nms_compares_with_a_float32_threshold():
    """These two have an IoU of exactly float32(0.3), which compiled mmcv keeps at a threshold of 0.3."""
    boxes = torch.tensor([[0.0, 0, 10, 1], [0, 0, 3, 1]])
    assert len(mmcv.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.3)[1]) == 2


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_nms_match_groups_boxes_with_the_one_that_suppresses_them(dtype, device):
    boxes, scores = random_boxes(60, dtype), torch.rand(60, dtype=dtype)
    expected, order = [], scores.argsort(descending=True).tolist()
    while order:
        best, *rest = order
        matches = [i for i in rest if iou_of(boxes[best].tolist(), boxes[i].tolist(), 0) >= 0.4]
        expected.append([best, *matches])
        order = [i for i in rest if i not in matches]
    groups = mmcv.ops.nms_match(torch.cat([boxes, scores[:, None]], 1).to(device), 0.4)
    assert [group.tolist() for group in groups] == expected
    assert [group[0].item() for group in groups] == mmcv.ops.nms(boxes, scores, 0.4)[1].tolist()
    assert max(map(len, expected)) > 2


def test_nms_match_suppresses_at_the_threshold_unlike_nms():
    dets = torch.tensor([[0.0, 0, 10, 1, 0.9], [0, 0, 3, 1, 0.8], [5, 5, 5, 5, 0.7], [5, 5, 5, 5, 0.6]])
    assert [group.tolist() for group in mmcv.ops.nms_match(dets, 0.3)] == [[0, 1], [2], [3]]
    assert [group.tolist() for group in mmcv.ops.nms_match(dets.numpy(), 0.31)] == [[0], [1], [2], [3]]
    assert mmcv.ops.nms_match(dets[:0], 0.3) == []


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_nms_in_half_precision(dtype):
    boxes, scores = random_boxes(60).to(dtype), torch.rand(60)
    dets, keep = mmcv.ops.nms(boxes, scores.to(dtype), 0.4)
    assert torch.equal(keep, mmcv.ops.nms(boxes.float(), scores.to(dtype).float(), 0.4)[1])
    assert dets.dtype == dtype


def test_nms_under_autocast():
    boxes, scores = random_boxes(60), torch.rand(60)
    with torch.autocast('cpu', torch.bfloat16):
        keep = mmcv.ops.nms(boxes, scores.bfloat16(), 0.4)[1]
    assert torch.equal(keep, mmcv.ops.nms(boxes, scores.bfloat16().float(), 0.4)[1])


def test_suppression_of_nothing(device):
    boxes, scores = torch.zeros(0, 4, device=device), torch.zeros(0, device=device)
    for function in (mmcv.ops.nms, mmcv.ops.soft_nms):
        dets, keep = function(boxes, scores, iou_threshold=0.5)
        assert dets.shape == (0, 5) and keep.shape == (0,) and keep.dtype == torch.long
    dets, keep = mmcv.ops.nms(random_boxes(5), torch.zeros(5), 0.5, score_threshold=0.5)
    assert len(dets) == len(keep) == 0


def test_suppression_of_arrays():
    boxes, scores = random_boxes(30), torch.rand(30)
    dets, keep = mmcv.ops.nms(boxes.numpy(), scores.numpy(), 0.5)
    assert isinstance(dets, np.ndarray) and np.array_equal(keep, mmcv.ops.nms(boxes, scores, 0.5)[1])


def soft(boxes, scores, threshold, sigma, minimum, method, offset):
    """mmcv's loop: pick the best, lower the others, drop one by putting the last into its place."""
    order = list(range(len(scores)))
    scores = [float(score) for score in scores]
    kept = []
    for i in range(len(scores)):
        if i >= len(order):
            break
        best = max(range(i, len(order)), key=lambda j: scores[order[j]])
        order[i], order[best] = order[best], order[i]
        kept.append((order[i], scores[order[i]]))
        pos = i + 1
        while pos < len(order):
            iou = iou_of(boxes[order[i]].tolist(), boxes[order[pos]].tolist(), offset)
            hit = iou >= threshold
            weight = {'naive': 1 - hit, 'linear': 1 - iou * hit, 'gaussian': math.exp(-iou * iou / sigma)}[method]
            scores[order[pos]] *= weight
            if scores[order[pos]] < minimum:
                order[pos] = order[-1]
                order.pop()
            else:
                pos += 1
    return [index for index, _ in kept], torch.tensor([score for _, score in kept])


@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('minimum', [0.0, 0.1])
def test_soft_nms_is_mmcvs_loop(method, offset, minimum):
    boxes = random_boxes(60, torch.float64)
    scores = torch.randint(1, 9, (60,)).double() / 8  # many equal scores: the order of ties is mmcv's
    dets, keep = mmcv.ops.soft_nms(boxes, scores, 0.3, 0.5, minimum, method, offset)
    expected, lowered = soft(boxes, scores, 0.3, 0.5, minimum, method, offset)
    assert keep.tolist() == expected
    torch.testing.assert_close(dets[:, 4].float(), lowered, rtol=1e-6, atol=1e-6)
    assert torch.equal(dets[:, :4], boxes[keep])


def test_soft_nms_leaves_its_inputs_alone():
    boxes, scores = random_boxes(20), torch.rand(20)
    before = scores.clone()
    mmcv.ops.soft_nms(boxes, scores, method='gaussian')
    assert torch.equal(scores, before)


@pytest.mark.parametrize('mode', ['iou', 'iof'])
@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('dtype', [torch.float64, torch.float16])
def test_bbox_overlaps(mode, offset, dtype, device):
    a, b = random_boxes(7).to(device, dtype), random_boxes(7).to(device, dtype)
    ious = mmcv.ops.bbox_overlaps(a, b, mode, False, offset)
    expected = torch.tensor([[iou_of(x, y, offset, mode) for y in b.tolist()] for x in a.tolist()]).to(ious)
    torch.testing.assert_close(ious, expected, rtol=1e-3 if dtype == torch.float16 else 1e-6, atol=1e-3)
    assert torch.equal(mmcv.ops.bbox_overlaps(a, b, mode, True, offset), ious.diagonal())


def test_bbox_overlaps_of_nothing():
    assert mmcv.ops.bbox_overlaps(torch.zeros(0, 4), random_boxes(3)).shape == (0, 3)
