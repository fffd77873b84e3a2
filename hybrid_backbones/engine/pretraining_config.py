"""The config of a pretraining run, in MMEngine's terms.

The recipe is that of DeiT (arXiv 2012.12877) as far as timm has it: AdamW, a cosine schedule, RandAugment, mixup and
CutMix, smooth labels, averaged weights, and a teacher if one is given. Images that are drawn, of which none is seen
twice, are neither augmented nor mixed.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS

from ..datasets.image_folder import ClassFolders, read_classes
from ..datasets.world import CLASSES, ShapesWorld
from .config import use_amp

WORLD = 'shapes-world'
# Drawn images to measure top-1 with: four of each class.
WORLD_VAL_IMAGES = 4 * len(CLASSES)
# The file in the work directory that a resumed run is compared with.
NAME = 'pretrain.py'

DATASETS.register_module(module=ShapesWorld)
DATASETS.register_module(module=ClassFolders)


@dataclass(frozen=True)
class Settings:
    """What a pretraining run depends on, but for its length.

    Args:
        name: One of :func:`hybrid_backbones.list_backbones`.
        data: `'shapes-world'`, or a folder of images in ImageNet's layout.
        options: The backbone's options.
        teacher: `timm:NAME` or `torchvision:NAME` with its published weights, or a file that pretraining wrote.
        size: Side of the images in pixels.
        batch_size: Images of an iteration, an even number: they are mixed in pairs.
        lr: Highest learning rate.
        seed: Of the initial weights, the images and their augmentation.
        workers: Processes that draw or read images.
        amp: `'fp16'` or `'bf16'` for mixed precision.

    Raises:
        ValueError: An odd batch size.
    """

    name: str
    data: str
    options: dict[str, Any] = field(default_factory=dict)
    teacher: str | None = None
    size: int = 128
    batch_size: int = 64
    lr: float = 1e-3
    seed: int = 0
    workers: int = 1
    amp: str | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 2 or self.batch_size % 2:
            raise ValueError(f'batch size {self.batch_size}: images are mixed in pairs, give an even number')

    def read_classes(self) -> tuple[str, ...]:
        """Names of the classes of the data."""
        return CLASSES if self.data == WORLD else read_classes(self.data)


def build_config(settings: Settings, classes: tuple[str, ...], work_dir: str) -> Config:
    """The run, but for what :func:`set_length` adds."""
    cfg = Config(
        dict(
            model=_model(settings, len(classes)),
            train_dataloader=_loader(settings, 'train')
            | dict(
                sampler=dict(type='InfiniteSampler', shuffle=True), batch_sampler=dict(type='ResumableBatchSampler')
            ),
            val_dataloader=_loader(settings, 'val') | dict(sampler=dict(type='DefaultSampler', shuffle=False)),
            val_evaluator=dict(type='Top1'),
            val_cfg=dict(),
            optim_wrapper=dict(
                # For its weight decay on matrices and kernels alone; all layers learn at one rate.
                constructor='LayerDecayOptimWrapperConstructor',
                paramwise_cfg=dict(decay_rate=1.0, num_layers=1),
                optimizer=dict(type='AdamW', lr=settings.lr, weight_decay=0.05, fused=True),
                clip_grad=dict(max_norm=5.0),
            ),
            custom_hooks=[
                dict(type='ReproducibleRunHook'),
                dict(type='CheckFiniteLossHook'),
                # Averages over a growing part of the past, so that short runs do not keep what they began with.
                dict(type='EMAHook', ema_type='MomentumAnnealingEMA', gamma=10, update_buffers=True),
            ],
            env_cfg=dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0)),
            randomness=dict(seed=settings.seed),
            work_dir=work_dir,
        ),
        cfg_text=f'pretraining of {settings.name}',  # which MMEngine would else read from the file
        filename=NAME,
        format_python_code=False,  # at every checkpoint, a second for yapf
    )
    if settings.amp:
        use_amp(cfg, settings.amp)
    return cfg


def _model(settings: Settings, num_classes: int) -> dict[str, Any]:
    drawn = settings.data == WORLD
    return dict(
        type='PretrainedClassifier',
        name=settings.name,
        num_classes=num_classes,
        options=settings.options,
        mixing=dict(prob=0.0, label_smoothing=0.0) if drawn else dict(mixup_alpha=0.8, cutmix_alpha=1.0),
        teacher=settings.teacher,
    )


def _loader(settings: Settings, split: str) -> dict[str, Any]:
    return dict(
        batch_size=settings.batch_size,
        num_workers=settings.workers,
        persistent_workers=settings.workers > 0,
        pin_memory=torch.cuda.is_available(),
        collate_fn=dict(type='default_collate'),
        dataset=_dataset(settings, split),
    )


def _dataset(settings: Settings, split: str) -> dict[str, Any]:
    common = dict(size=settings.size, split=split)
    if settings.data == WORLD:
        return dict(type='ShapesWorld', num_images=WORLD_VAL_IMAGES, seed=settings.seed, **common)
    augment = 'rand-m9-mstd0.5-inc1' if split == 'train' else None
    return dict(type='ClassFolders', root=settings.data, augment=augment, **common)


def set_length(cfg: Config, iterations: int) -> None:
    """Make the run one of `iterations`, with a complete schedule: warm-up, cosine, and top-1 at the end."""
    warm_up = max(1, iterations // 20)
    cfg.train_cfg = dict(by_epoch=False, max_iters=iterations, val_interval=iterations)
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=warm_up),
        dict(type='CosineAnnealingLR', by_epoch=False, begin=warm_up, end=iterations, eta_min_ratio=0.001),
    ]
    cfg.default_hooks = dict(
        logger=dict(type='LoggerHook', interval=max(1, min(50, iterations // 20))),
        checkpoint=dict(type='SafeCheckpointHook', by_epoch=False, interval=max(1, iterations // 10), max_keep_ckpts=1),
    )
    dataset = cfg.train_dataloader.dataset
    if dataset.type == 'ShapesWorld':  # no image is seen twice
        dataset.num_images = iterations * cfg.train_dataloader.batch_size
