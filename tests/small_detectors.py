"""Small detectors of mmdet whose random weights detect, and what mmdet itself finds with them."""

from pathlib import Path
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

import hybrid_backbones  # noqa: F401  (registers the backbones)

CONFIGS = Path(__file__).parents[1] / 'configs'
CHANNELS = [8, 16, 24, 32]
ARCH = dict(depths=(1, 1, 1, 1), dims=CHANNELS, kernel_size=3)
DETECTORS = {
    'mask_rcnn': 'maskrcnn_conv2former_n_shapes.py',
    'faster_rcnn': 'maskrcnn_conv2former_n_shapes.py',
    'cascade_mask_rcnn': 'cascade_maskrcnn_conv2former_n_shapes.py',
    'cascade_rcnn': 'cascade_maskrcnn_conv2former_n_shapes.py',
    'retinanet': 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
}
# Deviations of the last layers' weights: with noise as images scores lie on both sides of the thresholds.
LAST_LAYERS = dict(
    rpn_cls=0.5, rpn_reg=0.05, fc_cls=1.0, fc_reg=0.05, conv_logits=0.3, retina_cls=0.015, retina_reg=0.01
)
# On blank images all features are zero: what remains are these logits, below the threshold.
BLANK = dict(fc_cls=[0.0] * 6 + [4.0], retina_cls=[-4.0] * 54)


def config(name: str) -> ConfigDict:
    """`model` of one of `DETECTORS` with a small backbone."""
    source = DETECTORS[name]
    model = (get_config(source) if '::' in source else Config.fromfile(CONFIGS / source)).model
    model.backbone = ConfigDict(type='Conv2Former', arch=ARCH, layer_scale_init=1.0)
    model.neck.in_channels = CHANNELS
    if name == 'retinanet':
        model.neck.out_channels = 32
        model.bbox_head.update(in_channels=32, feat_channels=32, stacked_convs=1, num_classes=6)
        model.test_cfg.nms_pre = 300
    elif 'mask' not in name:
        model.roi_head.update(mask_roi_extractor=None, mask_head=None)
        model.type = 'CascadeRCNN' if name == 'cascade_rcnn' else 'FasterRCNN'
    if name == 'cascade_rcnn':
        for head in model.roi_head.bbox_head:
            head.reg_class_agnostic = False
    return model


def build(model: ConfigDict, seed: int = 0) -> nn.Module:
    """The detector of a config in eval mode, with weights that detect."""
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = MODELS.build(model).eval()
    for name, module in detector.named_modules():
        layer = name.rpartition('.')[2]
        if layer in LAST_LAYERS:
            nn.init.normal_(module.weight, std=LAST_LAYERS[layer])
            module.bias.data = torch.tensor(BLANK.get(layer, [0.0] * len(module.bias)))
    return detector


class Patches(nn.Module):
    """Maps of two levels, at strides 8 and 16, whose sizes are so simple that exporting takes seconds."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(3, channels, 8, 8, bias=False),
            nn.Conv2d(channels, channels, 2, 2, bias=False),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        first = self.first(images).relu()
        return 2 * first, 2 * self.second(first).relu()


def build_two_levels(name: str) -> nn.Module:
    """A two-stage detector on `Patches`, without a neck."""
    settings = config(name)
    settings.rpn_head.anchor_generator.strides = [8, 16]
    for extractor in ('bbox_roi_extractor', 'mask_roi_extractor'):
        if settings.roi_head[extractor]:
            settings.roi_head[extractor].featmap_strides = [8, 16]
    model = build(settings)
    model.backbone, model.neck = Patches(settings.rpn_head.in_channels), None
    return model


@torch.no_grad()
def found_by_mmdet(model: nn.Module, images: Tensor, size: tuple[int, int]) -> list[dict[str, Tensor]]:
    """`boxes`, `scores`, `labels` and, before they are pasted, `masks` of each image.

    Args:
        images: `(B, 3, h, w)`, padded.
        size: Height and width before padding.
    """
    meta: dict[str, Any] = dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0))
    samples = model.predict(images, [DetDataSample(metainfo=meta) for _ in images], rescale=False)
    instances = [sample.pred_instances for sample in samples]
    found = [dict(boxes=image.bboxes, scores=image.scores, labels=image.labels) for image in instances]
    if model.with_mask:
        maps = model.extract_feat(images)
        for number, image in enumerate(found):
            own = [level[number : number + 1] for level in maps]
            image['masks'] = _masks(model.roi_head, own, image['boxes'], image['labels'])
    return found


def _masks(roi_head: nn.Module, maps: list[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
    """Probabilities `(n, h, w)` of the detected classes, by mmdet's own forward of the mask heads."""
    regions = bbox2roi([boxes])
    stages = [(stage,) for stage in range(roi_head.num_stages)] if hasattr(roi_head, 'num_stages') else [()]
    logits = [roi_head._mask_forward(*stage, maps, regions)['mask_preds'] for stage in stages]
    return torch.stack(logits).sigmoid().mean(0)[torch.arange(len(labels)), labels]
