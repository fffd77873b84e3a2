"""Classes, boxes and masks of regions (arXiv 1506.01497, 1703.06870, 1712.00726) in exportable form."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .boxes import BoxDecoder
from .dense_heads import Boxes
from .regions import RegionPool
from .suppression import ABSENT, Suppression, suppress


class Stage(NamedTuple):
    """Outputs of a box head: `logits` `(B, R, classes + 1)` and `deltas` `(B, R, classes or 1, 4)`."""

    logits: Tensor
    deltas: Tensor


class BoxStage(nn.Module):
    """A box head with its pool and its decoding.

    Args:
        extractor: mmdet's `SingleRoIExtractor`.
        head: mmdet's `ConvFCBBoxHead` or one of its named forms.
    """

    def __init__(self, extractor: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.pool, self.head, self.decoder = RegionPool(extractor), head, BoxDecoder(head.bbox_coder)

    def forward(self, maps: Sequence[Tensor], boxes: Tensor, found: Tensor) -> Stage:
        """Outputs for the boxes `(B, R, 4)` that were found `(B, R)`; zeros for the others."""
        regions = self.pool(maps, boxes, found)
        logits, deltas = self.head(regions.features)
        return Stage(regions.spread(logits), regions.spread(deltas.unflatten(1, (-1, 4))))

    def refine(self, boxes: Tensor, stage: Stage, size: Tensor) -> Tensor:
        """Boxes `(B, R, 4)` moved by the deltas of their most likely class."""
        deltas = stage.deltas
        if deltas.shape[2] > 1:
            label = stage.logits[..., :-1].argmax(-1)[..., None, None]
            deltas = deltas.gather(2, label.expand(-1, -1, 1, 4))
        return self.decoder(boxes, deltas.squeeze(2), size)


class BoxStages(nn.Module):
    """Box heads one after the other; with one of them, Faster R-CNN's.

    Args:
        stages: The heads. Each refines the boxes of the one before; class logits are averaged.
        test_cfg: `score_thr` and `max_per_img`.
        suppression: How overlapping boxes of a class are removed.
    """

    def __init__(self, stages: Sequence[BoxStage], *, test_cfg: dict, suppression: Suppression) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.suppression = suppression
        self.lowest_score, self.count = test_cfg['score_thr'], test_cfg['max_per_img']

    def forward(self, maps: Sequence[Tensor], proposals: Boxes, size: Tensor) -> Boxes:
        """The best `max_per_img` boxes of each image, from proposals `(B, R, 4)`."""
        boxes, found = proposals.boxes, proposals.found
        outputs = [self.stages[0](maps, boxes, found)]
        for previous, stage in itertools.pairwise(self.stages):
            boxes = previous.refine(boxes, outputs[-1], size)
            outputs.append(stage(maps, boxes, found))
        scores = (sum(output.logits for output in outputs) / len(outputs)).softmax(-1)[..., :-1]
        boxes = self.stages[-1].decoder(boxes[:, :, None], outputs[-1].deltas, size)
        return self._best(boxes, torch.where(found[..., None], scores, ABSENT))

    def _best(self, boxes: Tensor, scores: Tensor) -> Boxes:
        """Suppression over regions times classes: `boxes` `(B, R, classes or 1, 4)`, `scores` `(B, R, classes)`."""
        classes = scores.shape[2]
        boxes = boxes.expand(-1, -1, classes, -1).flatten(1, 2)
        labels = torch.arange(classes, device=scores.device).expand(scores.shape).flatten(1)
        scores = torch.where(scores > self.lowest_score, scores, ABSENT).flatten(1)
        chosen = suppress(boxes, scores, labels, self.suppression, self.count)
        return Boxes(chosen.of(boxes), chosen.scores, chosen.of(labels))


class MaskStages(nn.Module):
    """Mask heads on the detected boxes; the probabilities of several are averaged.

    Args:
        extractors: mmdet's `SingleRoIExtractor`s, one for each head.
        heads: mmdet's `FCNMaskHead`s.
    """

    def __init__(self, extractors: Sequence[nn.Module], heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.pools = nn.ModuleList(map(RegionPool, extractors))
        self.heads = nn.ModuleList(heads)

    def forward(self, maps: Sequence[Tensor], detections: Boxes) -> Tensor:
        """Probabilities `(B, k, h, w)` of the detected classes, zeros behind the last detection."""
        stages = [self._stage(maps, detections, *parts) for parts in zip(self.pools, self.heads, strict=True)]
        return sum(stages) / len(stages)

    @staticmethod
    def _stage(maps: Sequence[Tensor], detections: Boxes, pool: RegionPool, head: nn.Module) -> Tensor:
        regions = pool(maps, detections.boxes, detections.found)
        logits = head(regions.features)
        if not head.class_agnostic:
            labels = regions.pick(detections.labels)[:, None, None, None]
            logits = logits.gather(1, labels.expand(-1, 1, *logits.shape[2:]))
        return regions.spread(logits.squeeze(1).sigmoid())
