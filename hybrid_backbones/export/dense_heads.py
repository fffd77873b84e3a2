"""Boxes of a dense head (RPN, arXiv 1506.01497; RetinaNet, arXiv 1708.02002) in exportable form."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .boxes import BoxDecoder, anchors_at
from .suppression import ABSENT, Suppression, highest, suppress


class Boxes(NamedTuple):
    """Boxes of a batch, best first.

    Args:
        boxes: `(B, k, 4)`.
        scores: `(B, k)`, negative for boxes that are not there.
        labels: `(B, k)` int64.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    @property
    def found(self) -> Tensor:
        """`(B, k)` bool."""
        return self.scores > ABSENT


class DenseDetector(nn.Module):
    """From maps to the best boxes of each image.

    Args:
        head: mmdet's `RPNHead` or `RetinaHead`.
        test_cfg: `nms_pre`, `nms`, `max_per_img`, `min_bbox_size`, and of RetinaNet `score_thr`.
        suppression: How overlapping boxes are removed.
        by_level: Whether it is done within each level (RPN) or within each class.
    """

    def __init__(self, *, head: nn.Module, test_cfg: dict, suppression: Suppression, by_level: bool) -> None:
        super().__init__()
        self.head = head
        self.decoder = BoxDecoder(head.bbox_coder)
        self.strides = head.prior_generator.strides
        for level, anchors in enumerate(head.prior_generator.base_anchors):
            self.register_buffer(f'anchors_{level}', anchors.clone(), persistent=False)
        self.suppression, self.by_level = suppression, by_level
        self.count, self.count_before = test_cfg['max_per_img'], test_cfg['nms_pre']
        self.lowest_score = ABSENT if by_level else test_cfg.get('score_thr', 0)
        self.smallest_side = test_cfg.get('min_bbox_size', -1)

    def forward(self, maps: Sequence[Tensor], size: Tensor) -> Boxes:
        """At most `max_per_img` boxes of each image.

        Args:
            maps: `(B, C, H_i, W_i)` of each level.
            size: `(2,)` height and width of the images without their padding.
        """
        outputs = zip(*self.head(maps), strict=True)
        levels = [self._candidates(level, *output, size) for level, output in enumerate(outputs)]
        boxes, scores, labels, groups = (torch.cat(parts, 1) for parts in zip(*levels, strict=True))
        chosen = suppress(boxes, scores, groups, self.suppression, self.count)
        return Boxes(chosen.of(boxes), chosen.scores, chosen.of(labels))

    def _candidates(self, level: int, logits: Tensor, deltas: Tensor, size: Tensor) -> tuple[Tensor, ...]:
        """The best `nms_pre` boxes of a level: boxes, scores, labels and groups.

        Args:
            logits: `(B, A * classes, H, W)`.
            deltas: `(B, A * 4, H, W)`.
        """
        width, channels = logits.shape[3], self.head.cls_out_channels
        logits = logits.permute(0, 2, 3, 1).unflatten(3, (-1, channels))
        scores = logits.sigmoid() if self.head.use_sigmoid_cls else logits.softmax(-1)[..., :-1]
        classes = scores.shape[4]
        chosen = highest(scores.flatten(1), self.count_before)
        place, labels = chosen.index // classes, chosen.index % classes
        deltas = deltas.permute(0, 2, 3, 1).unflatten(3, (-1, 4)).flatten(1, 3)
        deltas = deltas.gather(1, place[..., None].expand(-1, -1, 4))
        anchors = anchors_at(place, getattr(self, f'anchors_{level}'), width, self.strides[level])
        boxes = self.decoder(anchors, deltas, size)
        taken = (chosen.scores > self.lowest_score) & self._large_enough(boxes)
        groups = torch.full_like(labels, level) if self.by_level else labels
        return boxes, torch.where(taken, chosen.scores, ABSENT), labels, groups

    def _large_enough(self, boxes: Tensor) -> Tensor:
        if self.smallest_side < 0:
            return torch.ones_like(boxes[..., 0], dtype=torch.bool)
        return ((boxes[..., 2:] - boxes[..., :2]) > self.smallest_side).all(-1)
