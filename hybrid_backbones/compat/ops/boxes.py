"""Axis-aligned boxes: greedy and soft suppression, groups of suppressed boxes, overlaps. Boxes are `(x1, y1, x2, y2)`.

`offset` is 0 or 1: the width of a box is `x2 - x1 + offset` (1 for boxes that name their last pixel).
"""

import numpy as np
import torch
from torch import Tensor

from .kernels import torchvision_kernels, working_dtype

SOFT_NAIVE, SOFT_LINEAR, SOFT_GAUSSIAN = range(3)
IOU, IOF = range(2)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Greedy suppression of boxes that overlap a better one by more than `iou_threshold`.

    Args:
        boxes: `(n, 4)`.
        scores: `(n,)`.

    Returns:
        `(k,)` int64 indices of the kept boxes, best first.
    """
    dtype = working_dtype(boxes)
    boxes, scores = boxes.detach().to(dtype), scores.detach().to(dtype)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    # mmcv's threshold is a C float; a double 0.3 would suppress boxes whose float IoU is exactly 0.3.
    return torchvision_kernels().nms(boxes, scores, float(np.float32(iou_threshold)))


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (arXiv 1704.04503): overlapping boxes lose score instead of being dropped.

    Args:
        boxes: `(n, 4)`.
        scores: `(n,)`.
        dets: `(n, 5)` buffer; its first k rows become the kept boxes with their lowered scores, best first.
        iou_threshold: overlap from which the naive and linear methods act.
        sigma: width of the gaussian method.
        min_score: boxes that fall below it are dropped.
        method: 0 naive (score 0), 1 linear (`1 - iou`), 2 gaussian (`exp(-iou^2 / sigma)`).

    Returns:
        `(k,)` int64 indices of the kept boxes.
    """
    # NumPy: a step is a dozen operations on short arrays, where torch spends most of its time dispatching.
    table, order = _table(boxes, scores, offset), np.arange(len(boxes))
    threshold, minimum, sigma = (table.dtype.type(np.float32(value)) for value in (iou_threshold, min_score, sigma))
    keep, kept = [], []
    while len(order):
        best = table[4].argmax()
        keep.append(order[best])
        kept.append(table[:5, best].copy())
        box = table[:, best].copy()
        # The first box moves to the freed place: with equal scores, the order of mmcv's own loop.
        table[:, best], order[best] = table[:, 0], order[0]
        table, order = table[:, 1:], order[1:]
        table[4] *= _soft_weight(_overlap_with(box, table, offset), threshold, sigma, method)
        table, order = _drop_below(minimum, table, order)
    if kept:
        dets[: len(kept)] = torch.from_numpy(np.stack(kept)).to(dets)
    return torch.as_tensor(np.array(keep, dtype=np.int64), device=boxes.device)


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Greedy suppression that tells which boxes each kept one suppresses: those of IoU >= `iou_threshold`.

    Args:
        dets: `(n, 5)`, boxes and scores.

    Returns:
        One list for each kept box, best first: its index, then those of the boxes that it suppresses, best first.
    """
    boxes, scores = dets[:, :4], dets[:, 4]
    order = scores.detach().sort(descending=True).indices.cpu().numpy()
    table, threshold = _table(boxes, scores, 0)[:, order], np.float32(iou_threshold)
    groups = []
    while len(order):
        suppressed = _overlap_with(table[:, 0], table[:, 1:], 0) >= threshold
        groups.append([int(order[0]), *order[1:][suppressed].tolist()])
        table, order = table[:, 1:][:, ~suppressed], order[1:][~suppressed]
    return groups


def _table(boxes: Tensor, scores: Tensor, offset: int) -> np.ndarray:
    """One column for each box: x1, y1, x2, y2, score, area."""
    dtype = working_dtype(boxes)
    rows = torch.cat([boxes.detach().to('cpu', dtype).T, scores.detach().to('cpu', dtype)[None]]).numpy()
    areas = (rows[2] - rows[0] + offset) * (rows[3] - rows[1] + offset)
    return np.concatenate([rows, areas[None]])


def _overlap_with(box: np.ndarray, others: np.ndarray, offset: int) -> np.ndarray:
    """IoU of the column `box` with each column of the table `others`."""
    width = np.minimum(box[2], others[2]) - np.maximum(box[0], others[0]) + offset
    height = np.minimum(box[3], others[3]) - np.maximum(box[1], others[1]) + offset
    common = np.maximum(width, 0) * np.maximum(height, 0)
    with np.errstate(invalid='ignore'):  # two boxes without area: 0 / 0, as in mmcv
        return common / (box[5] + others[5] - common)


def _soft_weight(iou: np.ndarray, threshold: np.floating, sigma: np.floating, method: int) -> np.ndarray:
    if method == SOFT_GAUSSIAN:
        return np.exp(-(iou * iou) / sigma)
    lowered = 1 - iou if method == SOFT_LINEAR else np.zeros_like(iou)
    return np.where(iou >= threshold, lowered, iou.dtype.type(1))


def _drop_below(minimum: np.floating, table: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop boxes below `minimum`; survivors from the end fill the gaps, as in mmcv, whose ties depend on the order."""
    survives = ~(table[4] < minimum)
    count = int(survives.sum())
    if count < len(order):
        gaps = np.flatnonzero(~survives[:count])
        fill = np.flatnonzero(survives[count:])[::-1] + count
        table[:, gaps], order[gaps] = table[:, fill], order[fill]
    return table[:, :count], order[:count]


def bbox_overlaps(bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """Overlap of every box of `bboxes1` with every box of `bboxes2`, or of the pairs if `aligned`.

    Args:
        bboxes1: `(n, 4)`.
        bboxes2: `(m, 4)`.
        ious: `(n, m)`, or `(n,)` if `aligned`; overwritten.
        mode: 0 intersection over union, 1 intersection over the area of the first box.
    """
    dtype = working_dtype(bboxes1)
    first, second = bboxes1.to(dtype), bboxes2.to(dtype)
    if not aligned:
        first = first[:, None]
    sides = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])
    intersection = (sides + offset).clamp(min=0).prod(-1)
    base = (first[..., 2:] - first[..., :2] + offset).prod(-1)
    if mode == IOU:
        base = base + (second[..., 2:] - second[..., :2] + offset).prod(-1) - intersection
    ious.copy_(intersection / base.clamp(min=offset))
