"""Binary masks in COCO's two notations, without loss: polygons along pixel borders, and run lengths."""

from typing import Any

import numpy as np


def encode_mask(mask: np.ndarray, crowd: bool = False) -> list[list[int]] | dict[str, Any]:
    """COCO `segmentation` of a mask (H, W) bool: polygons where they can express it, run lengths for crowds and holes.

    COCO's polygons of one object are joined, so that none of them can cut a hole.
    """
    if not crowd:
        loops = trace_borders(mask)
        if all(_signed_area(loop) > 0 for loop in loops):
            return [[coordinate for point in loop for coordinate in point] for loop in loops]
    return encode_runs(mask)


def encode_runs(mask: np.ndarray) -> dict[str, Any]:
    """Uncompressed RLE: lengths of alternating runs in column order, zeros first."""
    flat = np.concatenate([[False], mask.flatten(order='F')])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], changes, [mask.size]]))
    return dict(size=list(mask.shape), counts=counts.tolist())


def trace_borders(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """Closed loops of (x, y) corners along the pixel borders of a mask, clockwise on screen around what is inside.

    Outer borders have positive shoelace area (y pointing down), holes negative. Pixels that touch at a corner only
    belong to separate loops.
    """
    steps = _border_steps(mask)
    loops = []
    while steps:
        start = point = min(steps)  # the leftmost corner: the border turns there, and passes it only once
        (heading,) = steps[start]
        loop = [start]
        while True:
            steps[point].remove(heading)
            if not steps[point]:
                del steps[point]
            point = (point[0] + heading[0], point[1] + heading[1])
            if point == start:
                break
            # Where two pixels touch at a corner, the right turn stays with the pixel at hand.
            turns = (_turn_right(heading), heading, _turn_left(heading))
            following = next(step for step in turns if step in steps[point])
            if following != heading:
                loop.append(point)
            heading = following
        loops.append(loop)
    return loops


def _turn_right(heading: tuple[int, int]) -> tuple[int, int]:
    """A quarter turn clockwise on screen (x to the right, y down)."""
    return -heading[1], heading[0]


def _turn_left(heading: tuple[int, int]) -> tuple[int, int]:
    return heading[1], -heading[0]


def _border_steps(mask: np.ndarray) -> dict[tuple[int, int], set[tuple[int, int]]]:
    """From each corner, the unit steps (dx, dy) along the border with the mask on the right-hand side."""
    padded = np.pad(mask, 1).astype(np.int8)
    steps: dict[tuple[int, int], set[tuple[int, int]]] = {}
    down = np.diff(padded, axis=0)[:, 1:-1]  # (H + 1, W): +1 where the mask begins below that border
    across = np.diff(padded, axis=1)[1:-1, :]  # (H, W + 1)
    for sign, diff, shift, step in (
        (1, down, (0, 0), (1, 0)),
        (-1, down, (1, 0), (-1, 0)),
        (1, across, (0, 1), (0, -1)),
        (-1, across, (0, 0), (0, 1)),
    ):
        for y, x in np.argwhere(diff == sign).tolist():
            steps.setdefault((x + shift[0], y + shift[1]), set()).add(step)
    return steps


def _signed_area(loop: list[tuple[int, int]]) -> int:
    """Twice the shoelace area of a loop; positive when it runs clockwise on screen."""
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(loop, [*loop[1:], loop[0]], strict=True))
