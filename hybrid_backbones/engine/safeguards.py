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
    dict(type='NameBatchHook'),
]
_SEEDABLE_SAMPLERS = ('DefaultSampler', 'InfiniteSampler')
_LOADING = ('LoadImageFromFile', 'LoadAnnotations')


def type_name(part: dict | None) -> str:
    """Name of the class that a part of a config stands for, without the modules that configs in pure Python give."""
    return (part or {}).get('type', '').rpartition('.')[2]


def add_safeguards(cfg: Config) -> None:
    """Add to a config of mmdet, mmseg or the user what ours inherit; nothing twice."""
    hooks = cfg.setdefault('default_hooks', {})
    checkpoint = hooks.setdefault('checkpoint', dict(type='CheckpointHook', interval=1))
    if checkpoint and type_name(checkpoint) == 'CheckpointHook':
        checkpoint['type'] = 'SafeCheckpointHook'
    custom = list(cfg.get('custom_hooks') or [])
    present = {type_name(hook) for hook in custom}
    cfg.custom_hooks = custom + [dict(hook) for hook in HOOKS if hook['type'] not in present]
    if not torch.cuda.is_available() and hooks.get('logger'):
        # An iteration takes seconds on a CPU: fifty of them would pass without a line in the log.
        hooks['logger']['interval'] = min(hooks['logger'].get('interval', 10), 10)
    if cfg.get('train_dataloader'):
        _seed_samples(cfg.train_dataloader)


def _seed_samples(loader: dict) -> None:
    grouping = loader.get('batch_sampler')
    resumable = type_name(grouping) == 'ResumableBatchSampler'
    if type_name(loader.get('sampler')) in _SEEDABLE_SAMPLERS and not resumable:
        loader['batch_sampler'] = dict(type='ResumableBatchSampler', batch_sampler=grouping)


def complete_safeguards(cfg: Config) -> None:
    """What depends on the command line's `--cfg-options`: called after them."""
    cfg.custom_hooks = [hook for hook in cfg.get('custom_hooks') or [] if hook.pop('enabled', True)]
    _move_drop_last(cfg)
    if cfg.get('launcher', 'none') == 'none':
        walk(cfg.get('model'), _use_sync_bn_of_torch)
    if cfg.get('explain_loading', True):
        for loader in dataloaders(cfg).values():
            walk(loader, _explain_loading)


def _move_drop_last(cfg: Config) -> None:
    """Move `train_dataloader.drop_last` to the batch sampler: PyTorch takes no other with one."""
    loader = cfg.get('train_dataloader') or {}
    if 'drop_last' in loader and type_name(loader.get('batch_sampler')) == 'ResumableBatchSampler':
        loader['batch_sampler']['drop_last'] = loader.pop('drop_last')


def _use_sync_bn_of_torch(part: dict) -> None:
    """One process has no process group, which mmcv's SyncBN asks for; MMEngine makes plain BatchNorm of PyTorch's."""
    if part.get('type') == 'MMSyncBN':
        part['type'] = 'SyncBN'


def _explain_loading(node: dict) -> None:
    pipeline = node.get('pipeline')
    for position, transform in enumerate(pipeline or []):
        if type_name(transform) in _LOADING:
            pipeline[position] = dict(type='LoadFromFileOrExplain', transform=transform)
