"""The best boxes of each image after non-maximum suppression, for a whole batch and in exportable form.

There is no Python loop over images or classes and no branch that depends on data; all sizes may be symbolic, and only
tensors inside `suppress` have sizes that depend on values.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

# The score of what is not there; probabilities are never negative.
ABSENT = -1.0


class Suppression(NamedTuple):
    """How overlapping boxes are removed.

    Args:
        iou_threshold: Boxes that overlap a better one by more are removed.
        class_agnostic: Whether boxes of different groups remove each other, too.
    """

    iou_threshold: float
    class_agnostic: bool = False


class Best(NamedTuple):
    """The best `k` of each image.

    Args:
        scores: `(B, k)`, `ABSENT` where there are fewer.
        index: `(B, k)` places among the candidates.
    """

    scores: Tensor
    index: Tensor

    @property
    def found(self) -> Tensor:
        """`(B, k)` bool."""
        return self.scores > ABSENT

    def of(self, values: Tensor) -> Tensor:
        """Rows `(B, k, ...)` of `values` `(B, N, ...)`."""
        index = self.index.reshape(*self.index.shape, *(1 for _ in values.shape[2:]))
        return values.gather(1, index.expand(-1, -1, *values.shape[2:]))


def highest(scores: Tensor, k: int) -> Best:
    """The `k` highest of `scores` `(B, N)`, not by score but in the order of their places.

    `topk` leaves the order of equal scores open, and confident scores often are equal; suppression afterwards keeps the
    first of them. Where N is less than `k`, place 0 with the score `ABSENT` fills up: sizes that follow are plain
    numbers, which keeps symbolic sizes short.
    """
    length = torch.sym_min(k, scores.shape[1])
    index = scores.topk(length).indices.sort().values
    missing = (0, k - length)
    return Best(F.pad(scores.gather(1, index), missing, value=ABSENT), F.pad(index, missing))


def best(scores: Tensor, k: int) -> Best:
    """The `k` highest of `scores` `(B, N)`, best first; of equal ones the first comes first (OpenVINO: any)."""
    chosen = highest(scores, k)
    ordered, order = chosen.scores.sort(dim=1, descending=True, stable=True)
    return Best(ordered, chosen.index.gather(1, order))


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, how: Suppression, k: int) -> Best:
    """The best `k` boxes of each image after non-maximum suppression within each group.

    One suppression serves the batch: boxes of different groups and images are moved apart. Groups are moved as mmcv
    moves them, for the same rounding, and images along y only, which keeps coordinates small.

    Args:
        boxes: `(B, N, 4)`.
        scores: `(B, N)`, `ABSENT` for boxes that do not take part.
        groups: `(B, N)` int64: classes or levels.
    """
    images, count = scores.shape
    present = scores > ABSENT
    groups = torch.zeros_like(groups) if how.class_agnostic else groups
    step, image_step = _steps(torch.where(present[..., None], boxes, 0))
    x = groups * step
    y = x + (torch.arange(images, device=boxes.device) * image_step)[:, None]
    moved = (boxes + torch.stack([x, y, x, y], -1)).reshape(-1, 4)
    # Two boxes without area, which suppress nothing and are kept: torchvision declares that at least two are.
    moved, flat = F.pad(moved, (0, 0, 0, 2)), F.pad(scores.reshape(-1), (0, 2), value=ABSENT)
    rows = F.pad(present.reshape(-1), (0, 2), value=True).nonzero().squeeze(1)
    # mmcv's threshold is a C float.
    kept = rows[nms(moved[rows], flat[rows], float(np.float32(how.iou_threshold)))]
    remaining = torch.full_like(flat, ABSENT).scatter(0, kept, flat[kept])
    return best(remaining[:-2].reshape(images, count), k)


def _steps(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """How far apart groups and images are moved.

    Groups are a step of mmcv apart on both axes, which separates boxes without negative coordinates. Unclipped boxes
    may reach into further groups; images are so far apart that they share no row with these either.
    """
    highest, lowest = boxes.max(), boxes.min().clamp(max=0)
    step, extent = highest + 1, highest - lowest
    return step, (extent / step).floor() * step + extent + 1
