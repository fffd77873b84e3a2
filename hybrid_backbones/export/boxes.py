"""Anchors and boxes decoded from deltas, in exportable form: mmdet's arithmetic at symbolic sizes.

Boxes are `(x1, y1, x2, y2)` in pixels of the network's input.
"""

import math

import torch
from torch import Tensor, nn

# Deltas of width and height beyond this ratio are clipped, as in mmdet's delta2bbox.
MAX_LOG_RATIO = abs(math.log(16 / 1000))


def anchors_at(index: Tensor, base_anchors: Tensor, width: int, stride: tuple[int, int]) -> Tensor:
    """Anchors of a map by their place in it.

    Args:
        index: `(...)` int64, `(y * width + x) * A + anchor`.
        base_anchors: `(A, 4)` of the cell at the origin.
        width: Cells in a row of the map.
        stride: Pixels from cell to cell, x and y.

    Returns:
        `(..., 4)`.
    """
    count = base_anchors.shape[0]
    # A tensor, as ONNX's exporter has no remainder by a symbolic number.
    columns = index.new_full((), width)
    cell = index // count
    x, y = cell % columns * stride[0], cell // columns * stride[1]
    return base_anchors[index % count] + torch.stack([x, y, x, y], -1).to(base_anchors)


class BoxDecoder(nn.Module):
    """Moves and scales boxes by normalised deltas (arXiv 1311.2524).

    Args:
        coder: mmdet's `DeltaXYWHBBoxCoder`, whose means, deviations and `clip_border` are taken.
    """

    def __init__(self, coder: object) -> None:
        super().__init__()
        self.register_buffer('means', torch.tensor(coder.means), persistent=False)
        self.register_buffer('stds', torch.tensor(coder.stds), persistent=False)
        self.clip_border = coder.clip_border

    def forward(self, boxes: Tensor, deltas: Tensor, size: Tensor) -> Tensor:
        """Decoded boxes.

        Args:
            boxes: `(..., 4)`.
            deltas: `(..., 4)`: shifts relative to the box's size, and logarithms of the scale.
            size: `(2,)` height and width of the images without their padding, to which boxes are clipped.
        """
        deltas = deltas * self.stds + self.means
        centre, side = (boxes[..., :2] + boxes[..., 2:]) * 0.5, boxes[..., 2:] - boxes[..., :2]
        centre = centre + side * deltas[..., :2]
        side = side * deltas[..., 2:].clamp(min=-MAX_LOG_RATIO, max=MAX_LOG_RATIO).exp()
        decoded = torch.cat([centre - side * 0.5, centre + side * 0.5], -1)
        if not self.clip_border:
            return decoded
        return torch.minimum(decoded.clamp(min=0), size.flip(0).repeat(2).to(decoded))
