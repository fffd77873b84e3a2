"""Detectors and segmentors of mmdet and mmseg, from the image array to predictions, to be measured."""

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from torch import Tensor, nn

from ..._tasks import is_segmentor
from ...backbones.pyramid import PyramidBackbone
from ...datasets.roots import walk
from ...engine.config import read_config
from ...swap import swap_backbone
from ...swap.feature_maps import build
from ..subjects import parse

# Objects in each image of a training step.
OBJECTS = 8


def is_config(name: str) -> bool:
    """Whether a name is that of a config, with or without `+BACKBONE` behind it."""
    return name.partition('+')[0].endswith('.py')


def find_config(name: str) -> Config:
    """`CONFIG`, a file or `mmdet::...`, or `CONFIG+BACKBONE` for one of ours in it: `CONFIG+deit_s:window_size=14`.

    Raises:
        FileNotFoundError, ValueError: No such config or backbone.
    """
    path, _, backbone = name.partition('+')
    if not backbone:
        return read_config(path)
    backbone, options = parse(backbone)
    return swap_backbone(path, backbone, **options)


class WholeModel(nn.Module):
    """A model of a config, untrained, with what its test pipeline does to images.

    Args:
        cfg: Config, or the name of one, see :func:`find_config`.
        size: Height and width in pixels to which the pipeline resizes images, in place of the config's scale.
        fuse: Fold what folds for inference in a backbone of ours.

    Raises:
        FileNotFoundError, ValueError: No such config or backbone.
    """

    def __init__(self, cfg: Config | str, size: tuple[int, int], fuse: bool = False) -> None:
        super().__init__()
        cfg = cfg if isinstance(cfg, Config) else find_config(cfg)
        if 'model' not in cfg or not cfg.get('test_dataloader'):
            raise ValueError(
                f'{cfg.filename} has no model or no test_dataloader; a detector of mmdet or segmentor of mmseg has'
            )
        self.segmentor = is_segmentor(cfg)
        scope = cfg.get('default_scope') or ('mmseg' if self.segmentor else 'mmdet')
        self.size = size
        self.model = _untrained(cfg, scope, size)
        with DefaultScope.overwrite_default_scope(scope):
            self.pipeline = Compose(_of_arrays(cfg, size))
        if fuse and isinstance(self.model.backbone, PyramidBackbone):
            self.model.backbone.fuse()
        if not self.segmentor:
            self._find_as_much_as_allowed()

    def forward(self, images: Sequence[np.ndarray]) -> list[Any]:
        """Predictions, a data sample each, of images `(H, W, 3)` in uint8."""
        return self.model.test_step(pseudo_collate([self.pipeline(dict(img=image, img_id=0)) for image in images]))

    def loss(self, batch_size: int) -> Tensor:
        """The sum of the losses on images of noise with invented objects."""
        batch = self.model.data_preprocessor(self._invented(batch_size), True)
        return self.model.parse_losses(self.model(**batch, mode='loss'))[0]

    def images(self, batch_size: int) -> list[np.ndarray]:
        """Noise `(H, W, 3)`."""
        return list(np.random.default_rng(0).integers(0, 256, (batch_size, *self.size, 3), dtype=np.uint8))

    def _invented(self, batch_size: int) -> dict[str, list[Any]]:
        if not self.segmentor:
            from mmdet.testing import demo_mm_inputs

            items = [OBJECTS] * batch_size
            batch = demo_mm_inputs(
                batch_size, (3, *self.size), items, num_classes=2, with_mask=True, with_semantic=True
            )
            for sample in batch['data_samples']:
                sample.gt_instances.labels.zero_()  # a class that every detector has
            return batch
        from mmseg.structures import SegDataSample

        samples = []
        for _ in range(batch_size):
            sample = SegDataSample(metainfo=dict(img_shape=self.size, ori_shape=self.size))
            sample.gt_sem_seg = PixelData(data=torch.randint(0, 2, (1, *self.size)))
            samples.append(sample)
        images = [torch.from_numpy(image).permute(2, 0, 1) for image in self.images(batch_size)]
        return dict(inputs=images, data_samples=samples)

    @torch.no_grad()
    def _find_as_much_as_allowed(self) -> None:
        """Lower the threshold of scores until an image has as many detections as the config allows.

        An untrained network is sure of nothing: what follows the boxes would have nothing to do.
        """
        settings = [getattr(module, 'test_cfg', None) or {} for module in self.model.modules()]
        settings = [setting for setting in settings if 'score_thr' in setting]
        if not settings:
            return
        for setting in settings:
            setting['score_thr'] = 0.0
        scores = self.eval()(self.images(1))[0].pred_instances.scores
        for setting in settings:
            setting['score_thr'] = 0.999 * float(scores.min()) if len(scores) else 0.0


def _untrained(cfg: Config, scope: str, size: tuple[int, int]) -> nn.Module:
    model = copy.deepcopy(cfg.model)
    walk(model, _forget_checkpoint)
    _keep_size(model.get('data_preprocessor') or {}, size)
    built = build(model, scope)
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)  # MMEngine logs every parameter
    try:
        built.init_weights()
    finally:
        logger.setLevel(level)
    return built


def _keep_size(preprocessor: dict[str, Any], size: tuple[int, int]) -> None:
    """Neither resize nor pad the images of a training step to the config's own size."""
    preprocessor.pop('batch_augments', None)
    if preprocessor.get('size'):
        preprocessor['size'] = size


def _forget_checkpoint(node: dict[str, Any]) -> None:
    if isinstance(init := node.get('init_cfg'), dict) and init.get('type') == 'Pretrained':
        node['init_cfg'] = None
    if isinstance(node.get('pretrained'), (str, Path)):
        node['pretrained'] = None


def _of_arrays(cfg: Config, size: tuple[int, int]) -> list[dict[str, Any]]:
    """The test pipeline, beginning with an image in memory and resizing to `size`."""
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    pipeline = [dict(step) for step in dataset.pipeline if not step['type'].endswith('LoadAnnotations')]
    for step in pipeline:
        if step['type'].endswith('LoadImageFromFile'):
            step['type'] = step['type'].replace('LoadImageFromFile', 'LoadImageFromNDArray')
            step.pop('backend_args', None)
        elif step['type'].endswith('Resize') and 'scale' in step:
            step['scale'] = size[::-1]
    return pipeline
