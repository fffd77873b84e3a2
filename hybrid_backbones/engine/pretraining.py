"""Pretraining of a backbone as a classifier, from a name and data to the file that `--checkpoint` takes."""

import time
from dataclasses import asdict, dataclass
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
from ..backbones.factory import find_backbone
from ..layers.fast_linear import use_fast_linear
from .config import check_work_dir, use_resume
from .cuda import prepare_cuda
from .memory import keep_freed_memory
from .pretraining_config import NAME, WORLD, Settings, build_config, set_length
from .pretraining_file import SUFFIX, is_pretrained_file, read_facts, write_pretrained
from .pretraining_model import PretrainedClassifier, Top1  # noqa: F401  (registers them)

# A schedule with fewer iterations teaches nothing.
MIN_ITERATIONS = 20
# Iterations before the time of one is measured, and the least time to measure for, in seconds.
_WARM_UP, _MEASURED_SECONDS = 3, 5.0
# Settings that a file does not need: what changes the speed alone, and the name, which is called `backbone` there.
_NO_FACTS = ('workers', 'name')


@dataclass(frozen=True)
class Length:
    """How long to train: exactly one of the three is given.

    Args:
        minutes: Time of the training alone, on this machine as it is when the run starts. It becomes a number of
            iterations, which is logged, written into the file, and kept by a run that is resumed.
        epochs: Passes over the images of a folder.
        iterations: Of `batch_size` images each.
    """

    minutes: float | None = None
    epochs: float | None = None
    iterations: int | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) != 1 or min(given.values()) <= 0:
            raise ValueError(f'give one of minutes, epochs and iterations, above 0; got {given or "none"}')


def pretrain(
    settings: Settings,
    length: Length,
    out: str | Path | None = None,
    work_dir: str | None = None,
    resume: bool = False,
) -> Path:
    """Train a classifier and write its averaged weights.

    Args:
        out: A `.safetensors` file; None for `NAME.safetensors` in the work directory.
        work_dir: Folder for logs and checkpoints; None for `work_dirs/pretrain_NAME`.
        resume: Continue from the work directory's latest intact checkpoint, if there is one.

    Returns:
        The file written, for `create_backbone`, `create_classifier` and `--checkpoint`.

    Raises:
        FileNotFoundError: The data are missing.
        FloatingPointError: A loss is not finite.
        PermissionError: The work directory cannot be written to.
        ValueError: Unknown backbone or teacher, or an argument that does not fit the data or the run to resume.
    """
    find_backbone(settings.name)
    work_dir = work_dir or str(Path('work_dirs') / f'pretrain_{settings.name}')
    out = Path(out or Path(work_dir) / f'{settings.name}{SUFFIX}')
    classes = settings.read_classes()
    _check(settings, length, classes, out)
    check_work_dir(work_dir)
    keep_freed_memory()
    prepare_cuda('tf32', False)
    cfg = build_config(settings, classes, work_dir)
    set_length(cfg, _resumed_length(cfg, resume) or _count(length, cfg))
    runner = Runner.from_cfg(cfg)
    _use_fast_linear_of_cpu(runner.model)
    runner.train()
    facts = _facts(settings, classes, runner)
    averaged = next(hook for hook in runner.hooks if isinstance(hook, EMAHook)).ema_model.module
    write_pretrained(out, averaged.classifier, facts)
    runner.logger.info(f'top-1 {facts["top1"]:.1f} % of {len(classes)} classes; written to {out}')
    return out


def _check(settings: Settings, length: Length, classes: tuple[str, ...], out: Path) -> None:
    if settings.data == WORLD and length.epochs:
        raise ValueError(f'{WORLD} has no end, and so no epochs: give minutes or iterations')
    if out.suffix != SUFFIX:
        raise ValueError(f'{out}: give a name that ends in {SUFFIX}')
    if settings.teacher and is_pretrained_file(settings.teacher):
        known = read_facts(settings.teacher)
        if tuple(known['classes']) != classes:
            raise ValueError(
                f'the teacher {settings.teacher} knows other classes than {settings.data}, those of {known["data"]}'
            )


def _facts(settings: Settings, classes: tuple[str, ...], runner: Runner) -> dict[str, Any]:
    given = {key: value for key, value in asdict(settings).items() if key not in _NO_FACTS}
    return given | dict(
        backbone=settings.name,
        data=settings.data if settings.data == WORLD else Path(settings.data).resolve().name,
        classes=classes,
        iterations=runner.max_iters,
        top1=runner.message_hub.get_scalar('val/top1').current(),
        versions=dict(hybrid_backbones=__version__, torch=torch.__version__, timm=timm.__version__),
    )


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
    _use_fast_linear_of_cpu(model)
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


def _use_fast_linear_of_cpu(model: torch.nn.Module) -> None:
    if next(model.parameters()).device.type == 'cpu':
        use_fast_linear(model)


def _resumed_length(cfg: Config, resume: bool) -> int | None:
    """Iterations of the run that is in the work directory, which `cfg` then continues; None to start a new one.

    Raises:
        ValueError: It was started with other settings.
    """
    started = Path(cfg.work_dir) / NAME
    if not (resume and started.is_file()):
        return None
    old = Config.fromfile(started)
    iterations = old.train_cfg.max_iters
    set_length(expected := Config(cfg.to_dict()), iterations)
    keys = ('model', 'train_dataloader', 'optim_wrapper', 'randomness')
    if changed := [key for key in keys if old.get(key) != expected.get(key)]:
        raise ValueError(
            f'the run in {started.parent} was started with another {", ".join(changed)} than asked for now: resume it '
            f'with the arguments that it was started with (they are in {started}), or choose another --work-dir'
        )
    print_log(use_resume(cfg, 'auto'))
    return iterations
