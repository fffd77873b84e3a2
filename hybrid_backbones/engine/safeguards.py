"""What protects a run of any config: exact resuming, a check for finite losses, whole checkpoints, clear errors.

Added before the command line's `--cfg-options`, so that each can be switched off there; docs/training.md lists how.
"""

import torch
from mmengine.config import Config

from ..datasets.roots import dataloaders, walk

# configs/_base_/runtime.py has the same list, for those who train by mmdet's or mmseg's own tools.
HOOKS = [
    # Every random draw of training is a function of (seed, iteration), so that a resumed run equals an unbroken one.
    dict(type='ReproducibleRunHook'),
    dict(type='CheckFiniteLossHook'),
    dict(type='FixedStatisticsHook'),
    dict(type='PublishedNamesHook'),
]
_SEEDABLE_SAMPLERS = ('DefaultSampler', 'InfiniteSampler')
_LOADING = ('LoadImageFromFile', 'LoadAnnotations')


def add_safeguards(cfg: Config) -> None:
    """Add to a config of mmdet, mmseg or the user what ours inherit; nothing twice."""
    hooks = cfg.setdefault('default_hooks', {})
    checkpoint = hooks.setdefault('checkpoint', dict(type='CheckpointHook', interval=1))
    if checkpoint and checkpoint['type'] == 'CheckpointHook':
        checkpoint['type'] = 'SafeCheckpointHook'
    custom = list(cfg.get('custom_hooks') or [])
    present = {hook['type'] for hook in custom}
    cfg.custom_hooks = custom + [dict(hook) for hook in HOOKS if hook['type'] not in present]
    if not torch.cuda.is_available() and hooks.get('logger'):
        # An iteration takes seconds on a CPU: fifty of them would pass without a line in the log.
        hooks['logger']['interval'] = min(hooks['logger'].get('interval', 10), 10)
    if cfg.get('train_dataloader'):
        _seed_samples(cfg.train_dataloader)


def _seed_samples(loader: dict) -> None:
    grouping = loader.get('batch_sampler')
    resumable = (grouping or {}).get('type') == 'ResumableBatchSampler'
    if (loader.get('sampler') or {}).get('type') in _SEEDABLE_SAMPLERS and not resumable:
        loader['batch_sampler'] = dict(type='ResumableBatchSampler', batch_sampler=grouping)


def complete_safeguards(cfg: Config) -> None:
    """What depends on the command line's `--cfg-options`: called after them."""
    cfg.custom_hooks = [hook for hook in cfg.get('custom_hooks') or [] if hook.pop('enabled', True)]
    _move_drop_last(cfg)
    if cfg.get('explain_loading', True):
        for loader in dataloaders(cfg).values():
            walk(loader, _explain_loading)


def _move_drop_last(cfg: Config) -> None:
    """Move `train_dataloader.drop_last` to the batch sampler: PyTorch takes no other with one."""
    loader = cfg.get('train_dataloader') or {}
    if 'drop_last' in loader and (loader.get('batch_sampler') or {}).get('type') == 'ResumableBatchSampler':
        loader['batch_sampler']['drop_last'] = loader.pop('drop_last')


def _explain_loading(node: dict) -> None:
    pipeline = node.get('pipeline')
    for position, transform in enumerate(pipeline or []):
        if transform['type'] in _LOADING:
            pipeline[position] = dict(type='LoadFromFileOrExplain', transform=transform)
