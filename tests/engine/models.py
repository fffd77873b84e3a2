"""Models that are small enough to build in every test."""

from pathlib import Path

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import Dataset

NANO = dict(type='Conv2Former', arch=dict(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), kernel_size=3))

LAYER_NORM_NANO = dict(
    type='HorNet',
    arch=dict(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), orders=(2, 2, 3, 3), gf=()),
    layer_scale_init=1.0,
    out_indices=(3,),
)


class TinyDetector(nn.Module):
    """The parts of a detector that the engine looks at: backbone, neck, head."""

    def __init__(self, backbone: nn.Module, neck_channels: list[int] | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = nn.Conv2d(1, 1, 1)
        self.neck.in_channels = neck_channels or list(getattr(backbone, 'out_channels', ()))
        self.bbox_head = nn.Linear(4, 2)


class Regression(BaseModel):
    """Fits a line; draws from every generator so that a wrong random state shows in its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, inputs: list[Tensor], mode: str = 'tensor', **_) -> dict | Tensor:
        x = torch.stack([torch.as_tensor(value) for value in inputs])
        loss = self.linear(self.dropout(x)).pow(2).mean()
        return dict(loss=loss) if mode == 'loss' else x


class Points(Dataset):
    """Twelve points whose coordinates are partly drawn, as augmentation draws."""

    metainfo: dict = {}

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=np.array([index / 12, np.random.rand()], np.float32))  # noqa: NPY002


class MapRegression(BaseModel):
    """Backbone, neck and a head on every pixel. LayerNorm alone: no image depends on the others of its batch."""

    def __init__(self, backbone: dict | None = None) -> None:
        super().__init__()
        self.backbone = MODELS.build(LAYER_NORM_NANO | (backbone or {}))
        self.neck = nn.Conv2d(self.backbone.out_channels[-1], 8, 1)
        self.head = nn.Linear(8, 1)

    def forward(self, inputs: list[Tensor], mode: str = 'tensor', **_) -> dict | tuple[Tensor]:
        x = torch.stack([torch.as_tensor(value) for value in inputs])
        y = self.head(self.neck(self.backbone(x)[-1]).permute(0, 2, 3, 1))
        target = x.mean((1, 2, 3))[:, None, None, None]
        return dict(loss=(y - target).square().mean()) if mode == 'loss' else (y,)


class Images(Points):
    """Twelve images of 32x48 pixels, whose brightness tells them apart."""

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=(np.random.rand(3, 32, 48) + index / 4).astype(np.float32))  # noqa: NPY002


class FallingLoss(BaseMetric):
    """A metric that improves at each evaluation."""

    calls = 0

    def process(self, data_batch: dict, data_samples: list) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict[str, float]:
        self.calls += 1
        return dict(loss=1 / self.calls)


def make_runner(work_dir: Path, max_iters: int = 6, checkpoint: dict | None = None, **options) -> Runner:
    """A run of seconds over `Points` with everything that the engine adds to a run."""
    for registry, module in ((MODELS, Regression), (DATASETS, Points), (METRICS, FallingLoss)):
        registry.register_module(module=module, force=True)
    loader = dict(
        batch_size=2,
        num_workers=0,
        dataset=dict(type='Points'),
        sampler=dict(type='InfiniteSampler', shuffle=True),
        batch_sampler=dict(type='ResumableBatchSampler'),
    )
    evaluation = dict(batch_size=4, dataset=dict(type='Points'), sampler=dict(type='DefaultSampler', shuffle=False))
    cfg = dict(
        model=dict(type='Regression'),
        work_dir=str(work_dir),
        train_dataloader=loader,
        val_dataloader=evaluation,
        val_evaluator=dict(type='FallingLoss'),
        train_cfg=dict(by_epoch=False, max_iters=max_iters, val_interval=2),
        val_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='SafeCheckpointHook', by_epoch=False, **(checkpoint or {}))),
        custom_hooks=[dict(type='ReproducibleRunHook'), dict(type='CheckFiniteLossHook')],
        randomness=dict(seed=1),
        log_level='ERROR',
        experiment_name=f'{work_dir}',
    )
    return Runner.from_cfg({**cfg, **options})


def make_image_runner(
    work_dir: Path,
    batch_size: int = 4,
    backbone: dict | None = None,
    optim_wrapper: dict | None = None,
    custom_hooks: list[dict] = (),
    **options,
) -> Runner:
    """The same over `Images`, which exercises a backbone; of :func:`make_runner` the further options."""
    for registry, module in ((MODELS, MapRegression), (DATASETS, Images)):
        registry.register_module(module=module, force=True)
    loader = dict(
        batch_size=batch_size,
        num_workers=0,
        dataset=dict(type='Images'),
        sampler=dict(type='InfiniteSampler', shuffle=True),
        batch_sampler=dict(type='ResumableBatchSampler'),
    )
    optimizer = dict(type='AdamW', lr=1e-3)
    common = dict(
        model=dict(type='MapRegression', backbone=backbone),
        train_dataloader=loader,
        val_dataloader=None,
        val_evaluator=None,
        val_cfg=None,
        optim_wrapper=dict(optimizer=optimizer) | (optim_wrapper or {}),
        custom_hooks=[dict(type='ReproducibleRunHook'), dict(type='CheckFiniteLossHook'), *custom_hooks],
    )
    return make_runner(work_dir, **{**common, **options})
