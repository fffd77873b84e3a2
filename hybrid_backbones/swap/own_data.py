"""A short config for data that were converted, with a backbone of ours: Mask R-CNN, Faster R-CNN or UperNet."""

import copy
import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from .._files import write_whole
from ..backbones.factory import find_backbone
from ..datasets.conversion import Converted
from ..engine.config import read_config
from ..engine.packaged_configs import PREFIX
from ..engine.starting_weights import recommended_weights
from .backbone import build_stages, swap_backbone
from .override import difference, to_code
from .recipe import layer_decay

# Of configs/_base_/own_runtime.py.
BASE_LR, BASE_BATCH = 2e-4, 16
# Random weights take longer, and larger steps.
SCRATCH_SCHEDULE, SCRATCH_LR = 3, 4
# Images seen in training: 50 epochs of small data sets, 12 of those as large as a fifth of COCO.
EPOCHS, SEEN, FEWEST_SEEN = (12, 50), 240_000, 4_000
VALIDATIONS = 10
CROP = 512

DETECTION = """\
# Images of {width} x {height} pixels in the median.
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True, with_mask={masks}),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomChoiceResize',
        scales=[(side, {long}) for side in range({shortest}, {size} + 1, 32)],
        keep_ratio=True,
    ),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=({long}, {size}), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask={masks}),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
own_data = dict(data_root=data_root, metainfo=metainfo)
train_dataloader = dict(batch_size={batch}, dataset=dict(**own_data, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**own_data, pipeline=test_pipeline))
val_evaluator = dict(ann_file=f'{{data_root}}/annotations/instances_val2017.json')
"""
DETECTION_TEST = """\
test_dataloader = dict(
    dataset=dict(
        **own_data,
        ann_file='annotations/instances_test2017.json',
        data_prefix=dict(img='test2017/'),
        pipeline=test_pipeline,
    )
)
test_evaluator = dict(ann_file=f'{data_root}/annotations/instances_test2017.json')
"""
SEGMENTATION = """\
# Images of {width} x {height} pixels in the median.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=({long}, {size}), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=({crop}, {crop}), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=({long}, {size}), keep_ratio=True),
    dict(type='LoadAnnotations'),  # at the label's own size, so after Resize
    dict(type='PackSegInputs'),
]
own_data = dict(data_root=data_root, metainfo=metainfo, img_suffix={suffix!r})
train_dataloader = dict(batch_size={batch}, dataset=dict(**own_data, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**own_data, pipeline=test_pipeline))
"""
SEGMENTATION_TEST = """\
test_dataloader = dict(
    dataset=dict(
        **own_data, data_prefix=dict(img_path='images/test', seg_map_path='annotations/test'), pipeline=test_pipeline
    )
)
"""
SCHEDULE = """\
# {epochs:.0f} epochs.
max_iters = {iterations}
warmup = {warmup}
train_cfg = dict(max_iters=max_iters, val_interval={interval})
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=warmup),
    dict(
        type='CosineAnnealingLR',
        by_epoch=False,
        begin=warmup,
        T_max=max_iters - warmup,
        end=max_iters,
        eta_min_ratio=0.01,
    ),
]
# {lr_rule}
optim_wrapper = dict(
    optimizer=dict(lr={lr:g}),
    paramwise_cfg={decay},
)
auto_scale_lr = dict(base_batch_size={batch})
default_hooks = dict(checkpoint=dict(interval={interval}))
"""


@dataclass(frozen=True)
class Plan:
    """Sizes and schedule that fit the amount of data.

    Attributes:
        size: Short side in pixels to which images are resized.
        batch: Images an iteration.
        iterations: Of the whole training.
        lr: Learning rate of AdamW.
    """

    size: int
    batch: int
    iterations: int
    lr: float


def plan_training(
    task: str,
    sizes: Sequence[tuple[int, int]],
    pretrained: bool,
    size: int | None = None,
    batch: int = 4,
    iterations: int | None = None,
) -> Plan:
    """Sizes and schedule for training images of the given (width, height); what is given is taken as it is."""
    short = median(min(pair) for pair in sizes)
    smallest, largest = (320, 800) if task == 'detection' else (64, 1024)
    batch = min(batch, len(sizes))
    if iterations is None:
        epochs = min(max(SEEN / len(sizes), EPOCHS[0]), EPOCHS[1])
        seen = max(epochs * len(sizes), FEWEST_SEEN) * (1 if pretrained else SCRATCH_SCHEDULE)
        iterations = math.ceil(seen / batch / VALIDATIONS) * VALIDATIONS
    lr = BASE_LR * math.sqrt(batch / BASE_BATCH) * (1 if pretrained else SCRATCH_LR)
    return Plan(size or _multiple(min(max(short, smallest), largest)), batch, iterations, float(f'{lr:.2g}'))


def _multiple(length: float, of: int = 32) -> int:
    return max(round(length / of), 1) * of


def published_weights(backbone: str) -> str:
    """The weights that the index recommends.

    Raises:
        ValueError: It has none for this backbone.
    """
    checkpoint = recommended_weights(backbone)
    if checkpoint is None:
        raise ValueError(f'--pretrained: no weights of {backbone} are published; leave it out to train from scratch')
    return checkpoint


def write_config(target: Path, data: Converted, task: str, backbone: str, checkpoint: str | None, plan: Plan) -> None:
    """Write a config that trains a backbone on converted data.

    Args:
        target: File to write.
        data: What was converted.
        task: 'detection' or 'segmentation'.
        backbone: One of :func:`hybrid_backbones.list_backbones`.
        checkpoint: Its pretrained weights, as for :func:`swap_backbone`; None to train from scratch.
        plan: Sizes and schedule.
    """
    kind = 'own_upernet' if task == 'segmentation' else 'own_maskrcnn' if data.with_masks else 'own_fasterrcnn'
    base = f'{PREFIX}_base_/{kind}.py'
    crop = min(_multiple(plan.size), CROP)
    changes = _model_changes(base, data, task, backbone, checkpoint, plan.size, crop)
    title = dict(own_upernet='UperNet', own_maskrcnn='Mask R-CNN', own_fasterrcnn='Faster R-CNN')[kind]
    counts = ', '.join(f'{count} {split}' for split, count in data.counts.items())
    lines = [
        f'"""{title} with {backbone} on {data.root.name}; images: {counts}."""',
        '',
        f'_base_ = {base!r}',
        '',
        f'data_root = {data.root.as_posix()!r}',
        f'metainfo = {to_code(dict(classes=data.classes, palette=data.palette), column=11)}',
        *(f'{key} = {to_code(value, column=len(key) + 3)}' for key, value in changes.items()),
        '',
        _data_code(data, task, plan, crop),
        _schedule_code(data, task, backbone, checkpoint, plan),
    ]
    write_whole(target, '\n'.join(lines).rstrip() + '\n')


def _model_changes(
    base: str, data: Converted, task: str, backbone: str, checkpoint: str | None, size: int, crop: int
) -> dict[str, Any]:
    """What the backbone, the classes and the crop change in the base."""
    old = read_config(base)
    cfg = copy.deepcopy(old)
    model = cfg.model
    heads = (
        [model.decode_head, model.auxiliary_head]
        if task == 'segmentation'
        else [head for head in (model.roi_head.bbox_head, model.roi_head.mask_head) if head]
    )
    for head in heads:
        head.num_classes = len(data.classes)
    if task == 'segmentation':
        model.data_preprocessor.update(size=(crop, crop), test_cfg=dict(size_divisor=32))
        if size > crop:
            model.test_cfg = dict(mode='slide', crop_size=(crop, crop), stride=(crop * 2 // 3, crop * 2 // 3))
    options = {}
    if checkpoint is None and 'layer_scale_init' in inspect.signature(find_backbone(backbone)[0]).parameters:
        options['layer_scale_init'] = 1.0  # as published, 1e-6 keeps the blocks silent for longer than a short run
    return difference(old.to_dict(), swap_backbone(cfg, backbone, checkpoint, **options).to_dict())


def _data_code(data: Converted, task: str, plan: Plan, crop: int) -> str:
    width, height = (round(median(sides)) for sides in zip(*data.sizes, strict=True))
    common = dict(width=width, height=height, size=plan.size, batch=plan.batch)
    if task == 'detection':
        long, shortest = round(plan.size * 5 / 3), min(_multiple(plan.size * 0.6), plan.size)
        code = DETECTION.format(**common, long=long, shortest=shortest, masks=data.with_masks)
        if 'test' in data.counts:
            return code + DETECTION_TEST
        return code + 'test_dataloader = val_dataloader\ntest_evaluator = val_evaluator\n'
    code = SEGMENTATION.format(**common, long=4 * plan.size, crop=crop, suffix=data.suffix)
    return code + (SEGMENTATION_TEST if 'test' in data.counts else 'test_dataloader = val_dataloader\n')


def _schedule_code(data: Converted, task: str, backbone: str, checkpoint: str | None, plan: Plan) -> str:
    decay = layer_decay(build_stages(backbone, {}), task == 'segmentation')
    rule = f'{BASE_LR:g} for {BASE_BATCH} images, times the square root of {plan.batch} / {BASE_BATCH}'
    if checkpoint is None:
        decay['decay_rate'] = 1.0  # no stage is to be spared
        rule += f', times {SCRATCH_LR} for random weights'
    return SCHEDULE.format(
        epochs=plan.iterations * plan.batch / len(data.sizes),
        iterations=plan.iterations,
        warmup=max(min(500, plan.iterations // 10), 1),
        interval=max(plan.iterations // VALIDATIONS, 1),
        lr_rule=f'{rule}.',
        lr=plan.lr,
        decay=to_code(decay),
        batch=plan.batch,
    )
