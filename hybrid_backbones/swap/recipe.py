"""Optimizer rules for a config whose backbone was swapped.

One of three, by what the config has:

1. custom_keys that set learning rates apart, such as `backbone=dict(lr_mult=0.1)` of the DETRs and Mask2Former: they
   stay, without the keys that name nothing in the new model;
2. AdamW without such keys: its learning rate and weight decay stay, layer-wise decay replaces the rules;
3. any other optimizer: AdamW with layer-wise decay, as our own configs have it.
"""

from typing import Any

from mmengine.config import Config
from torch import nn

from ..backbones._plain import PlainBackbone
from ..backbones.pyramid import PyramidBackbone

OURS = 'LayerDecayOptimWrapperConstructor'
ADAMW = dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05)
# ConvNeXt's detectors of depth 3-3-9-3 count six layers, deeper ones twelve.
FEW_BLOCKS = 21


def layer_decay(backbone: PyramidBackbone, segmentor: bool) -> dict[str, Any]:
    """`paramwise_cfg` of our Mask R-CNN and UperNet configs: ConvNeXt's, and of plain networks ViTDet's and BEiT's."""
    plain = isinstance(backbone, PlainBackbone)
    num_layers = 12 if plain or backbone.num_blocks > FEW_BLOCKS else 6
    if segmentor:
        kind = 'layer_wise' if plain else 'stage_wise'
        return dict(decay_type=kind, decay_rate=0.9, num_layers=num_layers)
    return dict(decay_type='layer_wise', decay_rate=0.7 if plain else 0.95, num_layers=num_layers)


def adapt_optimizer(cfg: Config, model: Any, segmentor: bool) -> list[str]:
    """Change `cfg.optim_wrapper`, and schedulers that do not fit it, to suit `model`, a detector or segmentor.

    Gradient clipping, accumulation and the type of the wrapper stay as they are.

    Returns:
        What changed and why, in words.
    """
    wrapper = cfg.get('optim_wrapper')
    if not wrapper:
        return ['optim_wrapper: the config has none, nothing to adapt']
    if wrapper.get('constructor') == OURS:
        return []
    old = wrapper.optimizer
    kept, dropped = _custom_keys(wrapper, model)
    if old.type == 'AdamW' and any(rule.get('lr_mult', 1) != 1 for rule in kept.values()):
        if not dropped:
            return [f'optim_wrapper: kept; its rules ({", ".join(kept)}) hold for any backbone']
        wrapper.paramwise_cfg.custom_keys = kept
        return [f"optim_wrapper: rules of the old backbone's {', '.join(dropped)} dropped; {', '.join(kept)} kept"]
    wrapper.constructor = OURS
    wrapper.paramwise_cfg = layer_decay(model.backbone, segmentor)
    rule = ', '.join(f'{key}={value}' for key, value in wrapper.paramwise_cfg.items())
    if old.type == 'AdamW':
        return [f'optim_wrapper: AdamW at lr {old.lr:g} kept, with layer-wise decay instead of its rules ({rule})']
    wrapper.optimizer = dict(ADAMW)
    reason = f'optim_wrapper: {old.type} -> AdamW at lr {ADAMW["lr"]:g} with layer-wise decay ({rule})'
    return [reason, *_scale_schedulers(cfg, ADAMW['lr'] / old.get('lr', ADAMW['lr']))]


def _custom_keys(wrapper: dict[str, Any], model: nn.Module) -> tuple[dict[str, dict], list[str]]:
    """Rules that name parameters of `model`, and keys of those that name none."""
    rules = (wrapper.get('paramwise_cfg') or {}).get('custom_keys') or {}
    names = [name for name, _ in model.named_parameters()]
    kept = {key: rule for key, rule in rules.items() if any(key in name for name in names)}
    return kept, [key for key in rules if key not in kept]


def _scale_schedulers(cfg: Config, ratio: float) -> list[str]:
    """Scale absolute final learning rates: SGD's of 1e-4 is where AdamW starts."""
    schedulers = cfg.get('param_scheduler') or []
    scaled = [s for s in (schedulers if isinstance(schedulers, list) else [schedulers]) if s.get('eta_min')]
    for scheduler in scaled:
        scheduler['eta_min'] = float(f'{scheduler["eta_min"] * ratio:.6g}')
    return [f'param_scheduler: eta_min scaled with the learning rate to {s["eta_min"]:g}' for s in scaled]
