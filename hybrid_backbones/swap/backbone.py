"""A backbone of ours in the place of any detector's or segmentor's own: `swap_backbone(CONFIG, 'coatnet_0')`."""

import copy
import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.utils import import_modules_from_strings
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .._tasks import inner_model, is_segmentor
from ..backbones.factory import find_backbone
from ..backbones.pyramid import PyramidBackbone
from ..checkpoints.hub import HUB
from ..checkpoints.published import SCHEME
from ..engine.config import base_of_package, read_config
from . import recipe, wiring
from .feature_maps import SIDE, Maps, build, choose_stages, maps_of, on_meta
from .override import difference, write_override


def swap_backbone(cfg: Config | str | Path, name: str, checkpoint: str | Path | None = None, **options: Any) -> Config:
    """Put a backbone into a config of mmdet 3.x or mmseg 1.x, and print what changed and why.

    Args:
        cfg: Config, file, or `mmdet::...` and `mmseg::...` for one of theirs. A Config is not changed.
        name: One of :func:`hybrid_backbones.list_backbones`.
        checkpoint: Its pretrained weights: file, URL or `hybrid://NAME`.
        **options: Arguments of the backbone over those that the name stands for; `out_indices` follows from the
            config.

    Raises:
        ValueError: Unknown backbone or option, or a config in which the backbone cannot be swapped; which part.
        FileNotFoundError: No such config or checkpoint.
    """
    new, reasons = _swap(_read(cfg), name, checkpoint, options)
    print_log('\n  '.join([f'{name} put into {cfg if not isinstance(cfg, Config) else cfg.filename}:', *reasons]))
    return new


def write_swapped(
    source: str | Path, target: str | Path, name: str, checkpoint: str | Path | None = None, **options: Any
) -> None:
    """Write what :func:`swap_backbone` gives as a short config that inherits from `source`, and print it.

    Raises:
        ValueError, FileNotFoundError: As swap_backbone.
    """
    source, target = str(source), Path(target)
    old = _read(source)
    new, reasons = _swap(old, name, checkpoint, options)
    base = base_of_package(source) if '::' in source else Path(os.path.relpath(source, target.parent)).as_posix()
    changes = difference(dict(old), dict(new))
    write_override(target, base, [f'{Path(source).stem} with {name}.', *reasons], changes)
    print_log('\n  '.join([f'{target} written:', *reasons]))


def _read(cfg: Config | str | Path) -> Config:
    # What the old backbone's package registers may be absent here.
    return cfg if isinstance(cfg, Config) else read_config(cfg, import_custom_modules=False)


def _swap(cfg: Config, name: str, checkpoint: str | Path | None, options: dict[str, Any]) -> tuple[Config, list[str]]:
    backbone = build_stages(name, options)
    elsewhere = str(checkpoint).startswith(('http://', 'https://', SCHEME, HUB))
    if checkpoint and not elsewhere and not Path(checkpoint).exists():
        raise FileNotFoundError(f'no checkpoint {checkpoint} for {name}')
    source = cfg.filename or 'this config'
    cfg = copy.deepcopy(cfg)
    try:
        reasons = _change(cfg, name, backbone, checkpoint, options)
    except ValueError as error:
        raise ValueError(f'{name} cannot be put into {source}: {error}') from error
    return cfg, reasons


def build_stages(name: str, options: dict[str, Any]) -> PyramidBackbone:
    """The backbone with all its stages, without weights.

    Raises:
        ValueError: Unknown name or options.
    """
    cls, defaults = find_backbone(name)
    known = sorted(inspect.signature(cls).parameters.keys() - {'out_indices', 'init_cfg'})
    if unknown := sorted(options.keys() - set(known)):
        raise ValueError(f'{cls.__name__} takes no option {", ".join(unknown)} here; it takes {", ".join(known)}')
    with torch.device('meta'):
        return cls(**defaults | options)


def _change(
    cfg: Config, name: str, backbone: PyramidBackbone, checkpoint: str | Path | None, options: dict[str, Any]
) -> list[str]:
    """Change `cfg` in place; what and why, in words."""
    if 'model' not in cfg:
        raise ValueError('it has no model; expected a detector of mmdet 3.x or a segmentor of mmseg 1.x')
    model = inner_model(cfg.model)
    wrapped = f'model ({cfg.model.get("type")}): the {model.get("type")} in it is changed'
    reasons = [wrapped] if model is not cfg.model else []
    wiring.check_parts(model, cfg.get('default_scope'))
    segmentor = is_segmentor(cfg)
    scope = cfg.get('default_scope') or ('mmseg' if segmentor else 'mmdet')
    reasons += wiring.read_teacher(model)
    old = _old_maps(model, scope, reasons)
    reasons += wiring.drop_pyramid_neck(model, segmentor)
    readers = wiring.readers(model, old, segmentor)
    needed = sorted({position for reader in readers for position in reader.positions if position != wiring.OWN})
    try:
        stages = choose_stages(old, needed, backbone, exact=not segmentor)
    except ValueError as error:
        raise ValueError(f'{", ".join(str(reader) for reader in readers)} reads {error}') from error
    chosen = list(stages.values())
    indices = tuple(backbone.out_indices[i] for i in chosen)
    new = Maps(tuple(backbone.out_channels[i] for i in chosen), tuple(backbone.out_strides[i] for i in chosen))
    reasons += _replace_backbone(cfg, model, name, backbone, indices, checkpoint, options)
    reasons += _strides(old, stages, new)
    for reader in readers:
        reasons += wiring.rewire(reader, {position: i for i, position in enumerate(needed)}, new)
    if any(reader.config.get('type') in wiring.READING_SIZES for reader in readers):
        cfg.find_unused_parameters = True
        reasons.append('find_unused_parameters: True, as the neck reads no more than the size of the finest map')
    reasons += _normalise(cfg.model, backbone)
    reasons += _import_ours(cfg)
    reasons += recipe.adapt_optimizer(cfg, _check(model, scope), segmentor)
    return reasons


def _old_maps(model: dict[str, Any], scope: str, reasons: list[str]) -> Maps:
    kind = model['backbone']['type']
    try:
        return maps_of(model['backbone'], scope)
    except ValueError as error:
        raise ValueError(f'model.backbone: {error}, so what reads it reads more than maps') from error
    except (KeyError, ImportError, RuntimeError, AssertionError) as error:  # absent here, or of one image size
        maps = wiring.assumed_maps(model)
        problem = str(error).strip('\'"').split('. ')[0]
        reasons.append(f'model.backbone: {kind} does not run here ({problem}); strides {maps.strides} assumed')
        return maps


def _replace_backbone(
    cfg: Config,
    model: dict[str, Any],
    name: str,
    backbone: PyramidBackbone,
    stages: tuple[int, ...],
    checkpoint: str | Path | None,
    options: dict[str, Any],
) -> list[str]:
    """Put `stages` of the backbone into the model, and drop what belonged to the old one."""
    old = model['backbone']
    _, defaults = find_backbone(name)
    new = dict(type=type(backbone).__name__, **defaults | options)
    if stages != backbone.out_indices:
        new[backbone.output_option] = stages
    if checkpoint:
        new['init_cfg'] = dict(type='Pretrained', checkpoint=str(checkpoint))
    if 'checkpoint' in cfg:  # of the old backbone
        cfg.checkpoint = None
    reasons = _batch_norm(cfg, new, old, backbone)
    model['backbone'] = new
    weights = f'weights of {checkpoint}' if checkpoint else 'random weights (give a checkpoint to start from others)'
    reasons.insert(
        0, f'model.backbone: {old["type"]} -> {type(backbone).__name__}, {backbone.output_option} {stages}, {weights}'
    )
    if model.get('pretrained'):
        reasons.append(f"model.pretrained: {model['pretrained']}, the old backbone's, dropped")
        model['pretrained'] = None
    if (model.get('init_cfg') or {}).get('checkpoint'):
        reasons.append(f'init_cfg: {model["init_cfg"]["checkpoint"]}, of the whole old model, dropped')
        model['init_cfg'] = None
    if cfg.get('load_from'):
        reasons.append(f'load_from: {cfg.load_from}, of the whole old model, dropped')
        cfg.load_from = None
    return reasons


def _batch_norm(cfg: Config, new: dict[str, Any], old: dict[str, Any], backbone: PyramidBackbone) -> list[str]:
    """How BatchNorm is trained: with fixed statistics as the old one, if there are any, or over all GPUs."""
    if not any(isinstance(module, _BatchNorm) for module in backbone.modules()):
        return []
    if 'norm_eval' not in new and old.get('norm_eval') and 'init_cfg' in new:
        new['norm_eval'] = True
        return ["model.backbone: norm_eval as the old backbone's; the checkpoint's statistics of BatchNorm stay"]
    if new.get('norm_eval') or cfg.get('sync_bn'):
        return []
    cfg.sync_bn = 'torch'
    return ['sync_bn: BatchNorm learns over all GPUs; one process on its own, or CPUs, have plain BN']


def _strides(old: Maps, stages: dict[int, int], new: Maps) -> list[str]:
    before = tuple(old.strides[i] for i in stages)
    if before == new.strides:
        return []
    why = '' if old.targets() == old.strides else '; the old backbone is plain or dilated, ours makes a pyramid'
    return [f'strides: maps of strides {new.strides} take the places of {before}, stage by stage{why}']


def _normalise(model: dict[str, Any], backbone: PyramidBackbone) -> list[str]:
    wanted = dict(mean=list(backbone.image_mean), std=list(backbone.image_std), bgr_to_rgb=True)
    values = ', '.join(f'{key}={value}' for key, value in wanted.items())
    preprocessors = wiring.preprocessors(model)
    if not preprocessors:
        return [f'model.data_preprocessor: the config has none; images should be normalised by {wanted}']
    reasons = []
    for preprocessor in preprocessors:
        before = {key: preprocessor.get(key) for key in wanted}
        preprocessor.update(wanted)
        preprocessor.pop('rgb_to_bgr', None)
        if any(list(before[key] or ()) != wanted[key] for key in ('mean', 'std')) or not before['bgr_to_rgb']:
            reasons = [f'model.data_preprocessor: {values}, as the images that the backbone is pretrained on']
    return reasons


def _import_ours(cfg: Config) -> list[str]:
    """`custom_imports` with this package, without packages of which nothing is left in the model."""
    custom = dict(cfg.get('custom_imports') or {})
    imports = custom.get('imports') or []
    imports = [imports] if isinstance(imports, str) else list(imports)
    unused = {package for package in ('mmpretrain', 'mmcls') if f"'{package}." not in repr(cfg.model)}
    gone = [name for name in imports if name.split('.')[0] in unused]
    imports = [name for name in imports if name not in gone]
    import_modules_from_strings(imports, custom.get('allow_failed_imports', False))
    if 'hybrid_backbones' not in imports:
        imports.append('hybrid_backbones')
    cfg.custom_imports = dict(custom, imports=imports, allow_failed_imports=custom.get('allow_failed_imports', False))
    return [f'custom_imports: {", ".join(gone)} dropped, of which the model has nothing left'] if gone else []


def _check(model: dict[str, Any], scope: str) -> nn.Module:
    """Build the new model without weights, and see that its parts fit together.

    Raises:
        ValueError: They do not; which.
    """
    neck = wiring.part_names(model, 'neck') or 'model.backbone'
    try:
        built, maps = on_meta(lambda: _extract(build(model, scope)))
    except (TypeError, AssertionError, RuntimeError, IndexError) as error:
        raise ValueError(f'{neck} cannot be built for its maps, or fails on them: {error!r}') from error
    wiring.check_heads(built, maps)
    return built


def _extract(model: Any) -> tuple[nn.Module, Sequence[Tensor]]:
    model.eval()  # of which mmdet's distillation returns nothing
    image = torch.zeros(1, 3, SIDE, SIDE)
    # Mask2FormerVideo has no such method.
    return model, model.extract_feat(image) if hasattr(model, 'extract_feat') else model.backbone(image)
