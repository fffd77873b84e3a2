"""Whole detectors of mmdet as networks that export: Mask R-CNN, Faster R-CNN, their cascades, RetinaNet.

The modules with weights are the model's own; anchors, decoding, suppression and the choice of levels, which mmdet
writes for one image at a time and in terms of values, are written for batches (`dense_heads`, `roi_heads`).
"""

import torch
from torch import Tensor, nn

from .dense_heads import Boxes, DenseDetector
from .detector_parts import check_detector, suppression_of
from .roi_heads import BoxStage, BoxStages, MaskStages


class DetectorNetwork(nn.Module):
    """The network of a detector, between preprocessing and postprocessing.

    Weights are shared with the model.

    Args:
        model: A built detector of mmdet in eval mode.

    Attributes:
        count: K, the most detections of an image: `max_per_img` of the config.
        stride: Pixels from cell to cell of the coarsest map. PyTorch takes maps of one row or column apart, so images
            to trace with, and those given to an exported program, have at least two cells; ONNX files take any.

    Raises:
        ValueError: A part of the model does not export; it is named with what does.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        check_detector(model)
        self.backbone, self.neck = model.backbone, model.neck if model.with_neck else nn.Identity()
        roi_head = getattr(model, 'roi_head', None)
        self.dense = _dense_detector(model)
        self.boxes = _box_stages(roi_head) if roi_head else None
        self.masks = _mask_stages(roi_head) if roi_head and roi_head.with_mask else None
        self.count: int = (roi_head or model.bbox_head).test_cfg['max_per_img']
        self.stride: int = max(map(max, self.dense.strides))
        self.eval()

    def forward(self, image: Tensor, size: Tensor) -> dict[str, Tensor]:
        """Detections in pixels of the network's input, the best first.

        Args:
            image: `(B, 3, h, w)`, normalised, and padded at the right and the bottom.
            size: `(2,)` int64 height and width before padding.

        Returns:
            With K, `count` of this network: `boxes` `(B, K, 4)` `(x1, y1, x2, y2)`, `scores` `(B, K)`, `labels`
            `(B, K)` int64, `count` `(B,)` int64, and of models with masks `masks` `(B, K, h, w)`, probabilities of the
            class in the box. Behind `count` there are zeros, and labels of -1.
        """
        maps = self.neck(self.backbone(image))
        boxes = self.dense(maps, size)
        if self.boxes is not None:
            boxes = self.boxes(maps, boxes, size)
        outputs = _filled(boxes)
        if self.masks is not None:
            outputs['masks'] = self.masks(maps, boxes)
        return outputs


def _filled(boxes: Boxes) -> dict[str, Tensor]:
    """Named outputs, with fixed values behind the last box."""
    found = boxes.found
    return {
        'boxes': torch.where(found[..., None], boxes.boxes, 0),
        'scores': torch.where(found, boxes.scores, 0),
        'labels': torch.where(found, boxes.labels, -1),
        'count': found.sum(1),
    }


def _dense_detector(model: nn.Module) -> DenseDetector:
    by_level = hasattr(model, 'rpn_head')
    head = model.rpn_head if by_level else model.bbox_head
    suppression = suppression_of('test_cfg', head.test_cfg)
    return DenseDetector(head=head, test_cfg=head.test_cfg, suppression=suppression, by_level=by_level)


def _box_stages(roi_head: nn.Module) -> BoxStages:
    parts = zip(_listed(roi_head.bbox_roi_extractor), _listed(roi_head.bbox_head), strict=True)
    suppression = suppression_of('test_cfg', roi_head.test_cfg)
    return BoxStages([BoxStage(*pair) for pair in parts], test_cfg=roi_head.test_cfg, suppression=suppression)


def _mask_stages(roi_head: nn.Module) -> MaskStages:
    return MaskStages(_listed(roi_head.mask_roi_extractor), _listed(roi_head.mask_head))


def _listed(parts: nn.Module) -> list[nn.Module]:
    """Cascades have a list of each part, one for each stage."""
    return list(parts) if isinstance(parts, nn.ModuleList) else [parts]
