"""Which parts of mmdet's detectors export; a detector with another part is refused by name before anything is done.

Types are compared exactly: a subclass computes something else.
"""

from collections.abc import Iterator
from typing import Any

from mmcv.ops import RoIAlign
from mmcv.ops import nms as hard_nms
from mmdet.models import dense_heads, detectors, roi_heads
from mmdet.models.roi_heads import bbox_heads, mask_heads, roi_extractors
from mmdet.models.task_modules import coders, prior_generators
from torch import nn

from .suppression import Suppression

DETECTORS = (detectors.FasterRCNN, detectors.MaskRCNN, detectors.CascadeRCNN, detectors.RetinaNet)
ROI_HEADS = (roi_heads.StandardRoIHead, roi_heads.CascadeRoIHead)
BOX_HEADS = (bbox_heads.ConvFCBBoxHead, bbox_heads.Shared2FCBBoxHead, bbox_heads.Shared4Conv1FCBBoxHead)
NMS_KEYS = {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}


def check_detector(model: nn.Module) -> None:
    """Look at every part that is written anew for export, or whose output is.

    Raises:
        ValueError: A part is not supported: its path in the config, what it is, and what is supported; or the model is
            in training mode.
    """
    if model.training:
        raise ValueError(f'{type(model).__name__} is in training mode; call eval() first')
    _require_type('model', model, *DETECTORS)
    if isinstance(model, detectors.RetinaNet):
        _check_dense_head('bbox_head', model.bbox_head, dense_heads.RetinaHead)
        return
    _check_dense_head('rpn_head', model.rpn_head, dense_heads.RPNHead)
    _require_type('roi_head', model.roi_head, *ROI_HEADS)
    _check_roi_head(model.roi_head)


def suppression_of(path: str, test_cfg: dict[str, Any]) -> Suppression:
    """Rules of `test_cfg['nms']`.

    Raises:
        ValueError: Another kind of suppression, or one with options that would change the result.
    """
    nms = test_cfg.get('nms') or {}
    others = set(nms) - NMS_KEYS
    if nms.get('type', 'nms') not in ('nms', hard_nms) or others or 'iou_threshold' not in nms:
        keys = ', '.join(sorted(NMS_KEYS))
        raise ValueError(f"{path}.nms: {dict(nms)} does not export; supported: type='nms' with {keys}")
    return Suppression(nms['iou_threshold'], nms.get('class_agnostic', False))


def named_parts(path: str, parts: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """A part of a model, or with its number each part of a cascade's list."""
    if isinstance(parts, nn.ModuleList):
        yield from ((f'{path}[{number}]', part) for number, part in enumerate(parts))
    else:
        yield path, parts


def _check_dense_head(path: str, head: nn.Module, supported: type) -> None:
    _require_type(path, head, supported)
    _require_type(f'{path}.anchor_generator', head.prior_generator, prior_generators.AnchorGenerator)
    _check_box_coder(path, head)
    _check_test_cfg(f'test_cfg of {path}', head.test_cfg, 'nms_pre', 'max_per_img')


def _check_roi_head(roi_head: nn.Module) -> None:
    if roi_head.with_shared_head:
        name = type(roi_head.shared_head).__name__
        raise ValueError(f'roi_head.shared_head: {name} does not export; supported: none')
    _check_test_cfg('test_cfg of roi_head', roi_head.test_cfg, 'max_per_img')
    for path, head in named_parts('roi_head.bbox_head', roi_head.bbox_head):
        _require_type(path, head, *BOX_HEADS)
        _check_box_coder(path, head)
        if not (head.with_cls and head.with_reg):
            raise ValueError(f'{path}: a head without classes or without boxes does not export')
    extractors = [*named_parts('roi_head.bbox_roi_extractor', roi_head.bbox_roi_extractor)]
    if roi_head.with_mask:
        extractors += named_parts('roi_head.mask_roi_extractor', roi_head.mask_roi_extractor)
        for path, head in named_parts('roi_head.mask_head', roi_head.mask_head):
            _require_type(path, head, mask_heads.FCNMaskHead)
    for path, extractor in extractors:
        _check_extractor(path, extractor)


def _check_extractor(path: str, extractor: nn.Module) -> None:
    _require_type(path, extractor, roi_extractors.SingleRoIExtractor)
    layer = extractor.roi_layers[0]
    _require_type(f'{path}.roi_layer', layer, RoIAlign)
    if layer.pool_mode != 'avg':
        raise ValueError(f"{path}.roi_layer: pool_mode={layer.pool_mode!r} does not export; supported: 'avg'")


def _check_box_coder(path: str, head: nn.Module) -> None:
    _require_type(f'{path}.bbox_coder', head.bbox_coder, coders.DeltaXYWHBBoxCoder)
    if head.bbox_coder.add_ctr_clamp:
        raise ValueError(f'{path}.bbox_coder: add_ctr_clamp=True does not export; supported: False')
    if getattr(head.loss_cls, 'custom_cls_channels', False) or getattr(head.loss_cls, 'custom_activation', False):
        name = type(head.loss_cls).__name__
        raise ValueError(f'{path}.loss_cls: {name} has its own activation, which does not export')


def _check_test_cfg(path: str, test_cfg: dict[str, Any], *counts: str) -> None:
    for key in counts:
        if test_cfg.get(key, -1) <= 0:
            raise ValueError(f'{path}: {key}={test_cfg.get(key)} does not export; it must be a positive number')
    suppression_of(path, test_cfg)


def _require_type(path: str, part: object, *supported: type) -> None:
    if type(part) not in supported:
        names = ', '.join(kind.__name__ for kind in supported)
        raise ValueError(f'{path}: {type(part).__name__} does not export; supported: {names}')
