"""Overlap of rotated boxes `(x centre, y centre, width, height, angle in radians, clockwise as y points down)`.

Two rectangles meet in a convex polygon whose corners are where their sides cross and the corners of one inside the
other. All pairs are computed at once, in double precision: the polygon's corners, their order by angle, its area.
"""

import torch
from torch import Tensor

IOU, IOF = range(2)
# A corner this far outside, as a part of the side, still counts: equal boxes must not lose corners to rounding.
_SLACK = 1e-9
_NO_AREA = 1e-14
# Pairs at a time: some 2 kB each.
_CHUNK = 2**16


def box_iou_rotated(bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode_flag: int, aligned: bool) -> None:
    """Overlap of every box of `bboxes1` with every box of `bboxes2`, or of the pairs if `aligned`.

    Args:
        bboxes1: `(n, 5)`.
        bboxes2: `(m, 5)`.
        ious: `(n * m,)`, or `(n,)` if `aligned`; overwritten.
        mode_flag: 0 intersection over union, 1 intersection over the area of the first box.
    """
    first, second = bboxes1.double(), bboxes2.double()
    near = _near(first if aligned else first[:, None], second)
    ious.zero_()
    for pairs in near.nonzero().split(_CHUNK):
        overlap = _pair_overlap(first[pairs[:, 0]], second[pairs[:, -1]], mode_flag)
        ious.view(near.shape)[tuple(pairs.T)] = overlap.to(ious.dtype)


def _near(first: Tensor, second: Tensor) -> Tensor:
    """Which boxes could meet: those whose circumscribed circles do. Boxes broadcast; most pairs of an image do not."""
    reach = (first[..., 2:4].norm(dim=-1) + second[..., 2:4].norm(dim=-1)) / 2
    return (first[..., :2] - second[..., :2]).norm(dim=-1) < reach


def _pair_overlap(first: Tensor, second: Tensor, mode: int) -> Tensor:
    """Overlap of each pair of boxes `(p, 5)`: `(p,)`, 0 where a box has no area."""
    areas = first[:, 2] * first[:, 3], second[:, 2] * second[:, 3]
    # Around the first box's centre, so that far away pairs lose no digits.
    corners = _corners(torch.zeros_like(first[:, :2]), first), _corners(second[:, :2] - first[:, :2], second)
    intersection = _area(*_meeting_points(*corners))
    base = areas[0] if mode == IOF else areas[0] + areas[1] - intersection
    real = (areas[0] >= _NO_AREA) & (areas[1] >= _NO_AREA)
    return torch.where(real, intersection / torch.where(real, base, 1), 0)


def _corners(centre: Tensor, boxes: Tensor) -> Tensor:
    """`(p, 4, 2)`, around the box."""
    half = boxes[:, None, 2:4] * boxes.new_tensor([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    cos, sin = boxes[:, 4:].cos(), boxes[:, 4:].sin()
    turned = torch.stack([half[..., 0] * cos - half[..., 1] * sin, half[..., 0] * sin + half[..., 1] * cos], dim=-1)
    return turned + centre[:, None]


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _meeting_points(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Candidates for the corners of the common polygon `(p, 24, 2)` and which of them are, `(p, 24)`."""
    sides1, sides2 = first.roll(-1, 1) - first, second.roll(-1, 1) - second
    # Side i of the first box and j of the second: first_i + t sides1_i = second_j + u sides2_j
    across = _cross(sides1[:, :, None], sides2[:, None])
    between = second[:, None] - first[:, :, None]
    parallel = across.abs() <= _NO_AREA
    across = across.masked_fill(parallel, 1)
    t = _cross(between, sides2[:, None]) / across
    u = _cross(between, sides1[:, :, None]) / across
    crossing = (t >= 0) & (t <= 1) & (u >= 0) & (u <= 1) & ~parallel
    points = first[:, :, None] + t[..., None] * sides1[:, :, None]
    candidates = torch.cat([points.flatten(1, 2), first, second], dim=1)
    return candidates, torch.cat([crossing.flatten(1), _inside(first, second), _inside(second, first)], dim=1)


def _inside(points: Tensor, box: Tensor) -> Tensor:
    """Which of `points` `(p, 4, 2)` lie in the rectangle of corners `box` `(p, 4, 2)`."""
    along = box[:, [1, 3]] - box[:, :1]
    projected = (points - box[:, :1]) @ along.transpose(1, 2)
    length = (along**2).sum(-1)[:, None]
    return ((projected >= -_SLACK * length) & (projected <= (1 + _SLACK) * length)).all(-1)


def _area(points: Tensor, valid: Tensor) -> Tensor:
    """Area of the convex polygon that the valid points `(p, q, 2)` bound, given in any order: `(p,)`."""
    count = valid.sum(1).clamp(min=1)
    centre = (points * valid[..., None]).sum(1) / count[:, None]
    around = (points - centre[:, None]).masked_fill(~valid[..., None], 0)
    angle = torch.atan2(around[..., 1], around[..., 0]).masked_fill(~valid, torch.inf)
    order = angle.argsort(dim=1)
    polygon = around.gather(1, order[..., None].expand_as(around))
    # The invalid ones, now last, become copies of the first point and add nothing.
    polygon = torch.where(valid.gather(1, order)[..., None], polygon, polygon[:, :1])
    return _cross(polygon, polygon.roll(-1, 1)).sum(1).abs() / 2
