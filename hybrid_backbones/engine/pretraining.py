"""Pretraining of a backbone as a classifier, from a name and data to the file that `--checkpoint` takes.

The recipe is that of DeiT (arXiv 2012.12877) as far as timm has it: AdamW, a cosine schedule, RandAugment, mixup and
CutMix, smooth labels, averaged weights, and a teacher if one is given. Images that are drawn, of which none is seen
twice, are neither augmented nor mixed.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.hooks import EMAHook
from mmengine.logging import print_log
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner

from .. import __version__
from ..backbones._classifier import Classifier
from ..backbones.factory import find_backbone
from ..datasets.image_folder import ClassFolders, read_classes
from ..datasets.world import CLASSES, ShapesWorld
from ..layers.fast_linear import use_fast_linear
from .config import check_work_dir, use_amp, use_resume
from .cuda import prepare_cuda
from .memory import keep_freed_memory
from .pretraining_file import is_pretrained_file, read_facts, write_pretrained
from .pretraining_model import PretrainedClassifier, Top1  # noqa: F401  (registers them)

DATASETS.register_module(module=ShapesWorld)
DATASETS.register_module(module=ClassFolders)

WORLD = 'shapes-world'
# Drawn images to measure top-1 with: four of each class.
WORLD_VAL_IMAGES = 4 * len(CLASSES)
# A schedule with fewer iterations teaches nothing.
MIN_ITERATIONS = 20
# Iterations before the time of one is measured, and the least time to measure for, in seconds.
_WARM_UP, _MEASURED_SECONDS = 3, 5.0
_CONFIG = 'pretrain.py'


@dataclass(frozen=True)
class Length:
    """How long to train: exactly one of the three is given."""

    minutes: float | None = None
    epochs: float | None = None
    iterations: int | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) != 1 or min(given.values()) <= 0:
            raise ValueError(f'give one of minutes, epochs and iterations, above 0; got {given or "none"}')


def pretrain(
    name: str,
    data: str,
    length: Length,
    out: str | Path | None = None,
    work_dir: str | None = None,
    options: dict[str, Any] | None = None,
    teacher: str | None = None,
    size: int = 128,
    batch_size: int = 64,
    lr: float = 1e-3,
    seed: int = 0,
    workers: int = 1,
    amp: str | None = None,
    resume: bool = False,
) -> Path:
    """Train a classifier and write its averaged weights; see `hybrid-backbones pretrain --help` for the arguments.

    Args:
        length: `minutes` counts the training alone, on this machine as it is now; the number of iterations is then
            fixed, and a resumed run keeps it.
        out: A `.safetensors` file; None for `NAME.safetensors` in the work directory.
        options: The backbone's options.
        teacher: `timm:NAME` or `torchvision:NAME` with its published weights, or a file that this function wrote.

    Returns:
        The file written, for `create_backbone`, `create_classifier` and `--checkpoint`.

    Raises:
        FileNotFoundError: The data are missing.
        FloatingPointError: A loss is not finite.
        PermissionError: The work directory cannot be written to.
        ValueError: Unknown backbone or teacher, or an argument that does not fit the data or the run to resume.
    """
    find_backbone(name)
    _check(data, length, batch_size, out)
    work_dir = work_dir or str(Path('work_dirs') / f'pretrain_{name}')
    check_work_dir(work_dir)
    keep_freed_memory()
    prepare_cuda('tf32', False)
    classes = CLASSES if data == WORLD else read_classes(data)
    if teacher and is_pretrained_file(teacher) and tuple((known := read_facts(teacher))['classes']) != classes:
        raise ValueError(f'the teacher {teacher} knows other classes than {data}, those of {known["data"]}')
    cfg = _config(name, classes, data, options or {}, teacher, size, batch_size, lr, seed, workers)
    cfg.work_dir = work_dir
    if amp:
        use_amp(cfg, amp)
    started = Path(work_dir) / _CONFIG
    if resume and started.is_file():
        iterations = _iterations_of(started, cfg)
        print_log(use_resume(cfg, 'auto'))
    else:
        iterations = _count(length, cfg)
    _set_length(cfg, iterations)
    runner = Runner.from_cfg(cfg)
    if next(runner.model.parameters()).device.type == 'cpu':
        use_fast_linear(runner.model)
    runner.train()
    facts = dict(
        backbone=name,
        options=options or {},
        data=data if data == WORLD else Path(data).name,
        classes=classes,
        seed=seed,
        size=size,
        batch_size=batch_size,
        lr=lr,
        iterations=iterations,
        teacher=teacher,
        top1=runner.message_hub.get_scalar('val/top1').current(),
        versions=dict(hybrid_backbones=__version__, torch=torch.__version__, timm=timm.__version__),
    )
    target = Path(out or Path(work_dir) / f'{name}.safetensors')
    write_pretrained(target, _averaged(runner), facts)
    runner.logger.info(f'top-1 {facts["top1"]:.1f} % of {len(classes)} classes; written to {target}')
    return target


def _check(data: str, length: Length, batch_size: int, out: str | Path | None) -> None:
    if data == WORLD and length.epochs:
        raise ValueError(f'{WORLD} has no end, and so no epochs: give minutes or iterations')
    if batch_size < 2 or batch_size % 2:
        raise ValueError(f'batch size {batch_size}: images are mixed in pairs, give an even number')
    if out and Path(out).suffix != '.safetensors':
        raise ValueError(f'{out}: give a name that ends in .safetensors')


def _config(
    name: str,
    classes: tuple[str, ...],
    data: str,
    options: dict[str, Any],
    teacher: str | None,
    size: int,
    batch_size: int,
    lr: float,
    seed: int,
    workers: int,
) -> Config:
    """The run, but for its length."""
    drawn = data == WORLD
    loader = dict(
        num_workers=workers, persistent_workers=workers > 0, pin_memory=torch.cuda.is_available(), collate_fn=dict(type='default_collate')
    )
    model = dict(
        type='PretrainedClassifier',
        name=name,
        num_classes=len(classes),
        options=options,
        mixing=dict(prob=0.0, label_smoothing=0.1) if drawn else dict(mixup_alpha=0.8, cutmix_alpha=1.0),
        teacher=teacher,
    )
    return Config(
        dict(
            model=model,
            train_dataloader=dict(
                loader,
                batch_size=batch_size,
                dataset=_dataset(data, 'train', size, seed),
                sampler=dict(type='InfiniteSampler', shuffle=True),
                batch_sampler=dict(type='ResumableBatchSampler'),
            ),
            val_dataloader=dict(
                loader,
                batch_size=batch_size,
                dataset=_dataset(data, 'val', size, seed),
                sampler=dict(type='DefaultSampler', shuffle=False),
            ),
            val_evaluator=dict(type='Top1'),
            val_cfg=dict(),
            optim_wrapper=dict(
                # For its weight decay on matrices and kernels alone; all layers learn at one rate.
                constructor='LayerDecayOptimWrapperConstructor',
                paramwise_cfg=dict(decay_rate=1.0, num_layers=1),
                optimizer=dict(type='AdamW', lr=lr, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
                clip_grad=dict(max_norm=5.0),
            ),
            custom_hooks=[
                dict(type='ReproducibleRunHook'),
                dict(type='CheckFiniteLossHook'),
                # Averages over a growing part of the past, so that short runs do not keep what they began with.
                dict(type='EMAHook', ema_type='MomentumAnnealingEMA', gamma=10, update_buffers=True),
            ],
            env_cfg=dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0)),
            randomness=dict(seed=seed),
        ),
        cfg_text=f'pretraining of {name}',  # which MMEngine would else read from the file
        filename=_CONFIG,
    )


def _dataset(data: str, split: str, size: int, seed: int) -> dict[str, Any]:
    if data == WORLD:
        return dict(type='ShapesWorld', num_images=WORLD_VAL_IMAGES, size=size, seed=seed, split=split)
    augment = 'rand-m9-mstd0.5-inc1' if split == 'train' else None
    return dict(type='ClassFolders', root=data, size=size, split=split, augment=augment)


def _count(length: Length, cfg: Config) -> int:
    """Iterations that `length` stands for."""
    if length.iterations:
        return length.iterations
    if length.epochs:
        batches = len(DATASETS.build(cfg.train_dataloader.dataset)) / cfg.train_dataloader.batch_size
        return max(1, round(length.epochs * batches))
    seconds = _seconds_per_iteration(cfg)
    iterations = int(60 * length.minutes / seconds)
    if iterations < MIN_ITERATIONS:
        raise ValueError(
            f'{length.minutes:g} minutes are {iterations} iterations of {seconds:.2f} s here, and fewer than '
            f'{MIN_ITERATIONS} teach nothing: give more minutes, smaller images or a smaller batch'
        )
    print_log(f'{length.minutes:g} minutes are {iterations} iterations of {seconds:.3f} s here')
    return iterations


def _seconds_per_iteration(cfg: Config) -> float:
    """Time of an iteration, measured with a network and images that are then dropped."""
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=cfg.randomness.seed)
    model = MODELS.build(cfg.model).to(get_device()).train()
    if get_device() == 'cpu':
        use_fast_linear(model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    count, begin = 0, 0.0
    for count, batch in enumerate(loader, 1 - _WARM_UP):
        model.train_step(batch, wrapper)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if count == 0:
            begin = time.perf_counter()
        if count >= 3 and time.perf_counter() - begin > _MEASURED_SECONDS:
            break
    return (time.perf_counter() - begin) / count


def _iterations_of(started: Path, cfg: Config) -> int:
    """Length of the run to resume, whose other settings have to be those of this one.

    Raises:
        ValueError: They are not.
    """
    old = Config.fromfile(started)
    iterations = old.train_cfg.max_iters
    _set_length(expected := Config(cfg.to_dict()), iterations)
    keys = ('model', 'train_dataloader', 'optim_wrapper', 'randomness')
    if changed := [key for key in keys if old.get(key) != expected.get(key)]:
        raise ValueError(
            f'the run in {started.parent} was started with another {", ".join(changed)} than asked for now: resume it '
            f'with the arguments that it was started with (they are in {started}), or choose another --work-dir'
        )
    return iterations


def _set_length(cfg: Config, iterations: int) -> None:
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


def _averaged(runner: Runner) -> Classifier:
    return next(hook for hook in runner.hooks if isinstance(hook, EMAHook)).ema_model.module.classifier
