"""From a config file and the command line's wishes to the config that runs."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config

from ..datasets.roots import dataloaders, set_data_root, walk
from .checkpoint import latest_checkpoint

_SEEDABLE_SAMPLERS = ('DefaultSampler', 'InfiniteSampler')


def read_config(path: str | Path, import_custom_modules: bool = True) -> Config:
    """Read a config file, or one of an installed package: `mmdet::retinanet/retinanet_r50_fpn_1x_coco.py`.

    Raises:
        FileNotFoundError: No such config.
    """
    if '::' not in str(path):
        if not Path(path).is_file():
            raise FileNotFoundError(f'no config {path}; ours are in configs/')
        return Config.fromfile(path, import_custom_modules=import_custom_modules)
    with tempfile.TemporaryDirectory() as folder:
        # MMEngine knows `package::` in bases only.
        file = Path(folder) / f'{Path(str(path)).stem}.py'
        file.write_text(f'_base_ = {str(path)!r}\n')
        cfg = Config.fromfile(file, import_custom_modules=import_custom_modules)
    return Config(cfg.to_dict(), cfg_text=cfg.text, filename=str(path))


def load_config(
    path: str | Path,
    work_dir: str | None = None,
    data_root: str | None = None,
    options: dict | None = None,
    launcher: str = 'none',
    change: Callable[[Config], Config] | None = None,
) -> Config:
    """Read a config of mmdet, mmseg or ours, and add what this package needs of any config.

    Args:
        path: Config file.
        work_dir: Folder for logs and checkpoints; else the config's, else `work_dirs/NAME_OF_THE_CONFIG`.
        data_root: Folder of the data, in place of the config's.
        options: Dotted keys and values over those of the file, as `--cfg-options` gives them.
        launcher: How the processes of a distributed run were started.
        change: Applied to what the file says, before `options`.

    Raises:
        FileNotFoundError: No such config.
    """
    # What changes the config imports what it still needs.
    cfg = read_config(path, import_custom_modules=change is None)
    if change is not None:
        cfg = change(cfg)
    if options:
        cfg.merge_from_dict(options)
    cfg.launcher = launcher
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(Path('work_dirs') / Path(path).stem)
    if cfg.get('embedded_data') == 'shapes':
        from ..datasets.shapes import ensure_shapes

        data_root = str(ensure_shapes(data_root))
    if data_root is not None:
        set_data_root(cfg, data_root)
    _make_safe(cfg)
    return cfg


def _make_safe(cfg: Config) -> None:
    """Give a config what ours inherit from `_base_/runtime.py`: it may be mmdet's, mmseg's or the user's own."""
    hooks = cfg.setdefault('default_hooks', {})
    checkpoint = hooks.setdefault('checkpoint', dict(type='CheckpointHook', interval=1))
    if checkpoint and checkpoint['type'] == 'CheckpointHook':
        checkpoint['type'] = 'SafeCheckpointHook'
    cfg.custom_hooks = list(cfg.get('custom_hooks') or [])
    present = {hook['type'] for hook in cfg.custom_hooks}
    for name in ('ReproducibleRunHook', 'CheckFiniteLossHook', 'FixedStatisticsHook'):
        if name not in present:
            cfg.custom_hooks.append(dict(type=name))
    if not torch.cuda.is_available() and hooks.get('logger'):
        # An iteration takes seconds on a CPU: fifty of them would pass without a word.
        hooks['logger']['interval'] = min(hooks['logger'].get('interval', 10), 10)
    if cfg.get('train_dataloader'):
        _seed_samples(cfg.train_dataloader)
    for loader in dataloaders(cfg).values():
        walk(loader, _explain_loading)


def _seed_samples(loader: dict) -> None:
    grouping = loader.get('batch_sampler')
    if (
        loader['sampler'].get('type') not in _SEEDABLE_SAMPLERS
        or (grouping or {}).get('type') == 'ResumableBatchSampler'
    ):
        return
    loader['batch_sampler'] = dict(type='ResumableBatchSampler', batch_sampler=grouping)
    if 'drop_last' in loader:  # PyTorch takes it with a batch sampler of its own only
        loader['batch_sampler']['drop_last'] = loader.pop('drop_last')


def _explain_loading(node: dict) -> None:
    pipeline = node.get('pipeline')
    for position, transform in enumerate(pipeline or []):
        if transform['type'] in ('LoadImageFromFile', 'LoadAnnotations'):
            pipeline[position] = dict(type='LoadFromFileOrExplain', transform=transform)


def use_amp(cfg: Config) -> None:
    """Train in mixed precision: fp16 with loss scaling on a GPU, bf16 on a CPU."""
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ValueError(f'--amp needs optim_wrapper.type OptimWrapper or AmpOptimWrapper, this config has {kind}')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def use_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate by the ratio of this run's batch size to the one that it was chosen for."""
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise ValueError(
            '--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the config: the batch size, over all '
            'GPUs, that its learning rate was chosen for'
        )
    cfg.auto_scale_lr.enable = True


def use_resume(cfg: Config, resume: str) -> str:
    """Resume from the checkpoint file `resume`, or with `'auto'` from the work directory's latest intact one.

    Returns:
        What was decided, in words.
    """
    if resume != 'auto':
        if not Path(resume).is_file():
            raise FileNotFoundError(f'--resume {resume}: no such checkpoint')
        found = resume
    else:
        found = latest_checkpoint(cfg.work_dir)
    cfg.resume = found is not None
    if found is None:
        return f'nothing to resume in {cfg.work_dir}: starting from the beginning'
    cfg.load_from = str(found)
    return f'resuming from {found}'


def check_work_dir(work_dir: str) -> None:
    """Create the work directory and try to write into it, before any work is done.

    Raises:
        PermissionError: It cannot be created or written to.
    """
    folder = Path(work_dir).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f'.write_test_{os.getpid()}'
        probe.write_text('')
        probe.unlink()
    except OSError as error:
        raise PermissionError(
            f'cannot write to the work directory {folder} ({error.strerror}); choose another with --work-dir'
        ) from error
