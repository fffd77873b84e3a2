"""Detectors and segmentors of mmdet and mmseg, from image arrays to predictions, for measurements."""

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

# Per image of a training step.
NUM_OBJECTS = 8


def is_config(name: str) -> bool:
    """Whether a name is a config's, with or without `+BACKBONE`."""
    return name.partition('+')[0].endswith('.py')


def find_config(name: str) -> Config:
    """`CONFIG`, a file or `mmdet::...`, or `CONFIG+BACKBONE` to swap its backbone: `CONFIG+deit_s:window_size=14`.

    Raises:
        FileNotFoundError, ValueError: No such config or backbone.
    """
    path, _, backbone = name.partition('+')
    if not backbone:
        return read_config(path)
    backbone, options = parse(backbone)
    return swap_backbone(path, backbone, **options)


class WholeModel(nn.Module):
    """The model of a config, untrained unless it is given, with its test pipeline.

    Args:
        cfg: Config, or the name of one, see :func:`find_config`.
        size: Height and width in pixels to which the pipeline resizes images, instead of the config's scale.
        fuse: Call `fuse()` of this package's backbones: BatchNorm is folded for inference.
        model: The config's model with weights of its own; it keeps its score threshold.

    Raises:
        FileNotFoundError, ValueError: No such config or backbone.
    """

    def __init__(
        self, cfg: Config | str, size: tuple[int, int], fuse: bool = False, model: nn.Module | None = None
    ) -> None:
        super().__init__()
        cfg = cfg if isinstance(cfg, Config) else find_config(cfg)
        if 'model' not in cfg or not cfg.get('test_dataloader'):
            raise ValueError(
                f'{cfg.filename} has no model or no test_dataloader; a detector of mmdet or segmentor of mmseg has'
            )
        self.segmentor = is_segmentor(cfg)
        scope = cfg.get('default_scope') or ('mmseg' if self.segmentor else 'mmdet')
        self.size = size
        self.model = _untrained(cfg, scope, size) if model is None else model
        with DefaultScope.overwrite_default_scope(scope):
            self.pipeline = Compose(_array_pipeline(cfg, size))
        if fuse and isinstance(self.model.backbone, PyramidBackbone):
            self.model.backbone.fuse()
        if model is None and not self.segmentor:
            self._lower_score_threshold()

    def to(self, *args: Any, **kwargs: Any) -> 'WholeModel':
        # Only MMEngine's own `to` tells the data preprocessor where images go.
        self.model.to(*args, **kwargs)
        return super().to(*args, **kwargs)

    def forward(self, images: Sequence[np.ndarray]) -> list[Any]:
        """Predictions, one data sample per image `(H, W, 3)` in uint8."""
        return self.model.test_step(pseudo_collate([self.pipeline(dict(img=image, img_id=0)) for image in images]))

    def loss(self, batch_size: int) -> Tensor:
        """The sum of the losses on images of noise with random objects."""
        batch = self.model.data_preprocessor(self._random_batch(batch_size), True)
        return self.model.parse_losses(self.model(**batch, mode='loss'))[0]

    def images(self, batch_size: int) -> list[np.ndarray]:
        """Images of noise, each `(H, W, 3)`."""
        return list(np.random.default_rng(0).integers(0, 256, (batch_size, *self.size, 3), dtype=np.uint8))

    def _random_batch(self, batch_size: int) -> dict[str, list[Any]]:
        if not self.segmentor:
            from mmdet.testing import demo_mm_inputs

            items = [NUM_OBJECTS] * batch_size
            batch = demo_mm_inputs(
                batch_size, (3, *self.size), items, num_classes=2, with_mask=True, with_semantic=True
            )
            for sample in batch['data_samples']:
                sample.gt_instances.labels.zero_()  # every detector has class 0
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
    def _lower_score_threshold(self) -> None:
        """Lower the score threshold until an image has as many detections as the config allows.

        An untrained detector has only low scores, and the stages after the boxes would have no input.
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
    walk(model, _remove_checkpoint)
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
    """Remove resizing and padding of training images to the config's own size."""
    preprocessor.pop('batch_augments', None)
    if preprocessor.get('size'):
        preprocessor['size'] = size


def _remove_checkpoint(node: dict[str, Any]) -> None:
    if isinstance(init := node.get('init_cfg'), dict) and init.get('type') == 'Pretrained':
        node['init_cfg'] = None
    if isinstance(node.get('pretrained'), (str, Path)):
        node['pretrained'] = None


def _array_pipeline(cfg: Config, size: tuple[int, int]) -> list[dict[str, Any]]:
    """The test pipeline for an image in memory, resizing to `size`."""
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
