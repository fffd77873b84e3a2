"""Do anchors and RoI extractors assume the strides that the feature maps have?"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from mmengine.registry import MODELS, DefaultScope

from .findings import ERROR, Finding
from .view import DataView, type_name

# Every stride up to 128 divides it.
_SIDE = 512
# Networks for one input size (YOLACT's 550) are given the ratios of their rounded maps, 110 for 128.
_SLACK = 1.3
# Generators whose strides are no exact ratios of maps, and extractors that read another map than the neck's.
_OTHER_MAPS = ('SSDAnchorGenerator', 'backbone', 'neck', 'semantic_roi_extractor', 'semantic_head', 'glbctx_head')
_GENERATORS = (
    'anchor_generator',
    'prior_generator',
    'point_generator',
    'approx_anchor_generator',
    'square_anchor_generator',
)


def check_geometry(data: DataView) -> Iterator[Finding]:
    """Findings about strides in heads, against those of the maps that backbone and neck put out."""
    model = data.cfg.get('model') or {}
    places = list(_stride_lists(model, 'model'))
    if not places or not isinstance(model.get('backbone'), dict):
        return
    strides = _measure(model, data.scope)
    if not strides:
        return
    for where, given in places:
        expected = strides[: len(given)] if 'roi_extractor' in where else strides
        ratios = [a / b for a, b in zip(given, expected, strict=False)]
        if len(given) == len(expected) and all(1 / _SLACK < ratio < _SLACK for ratio in ratios):
            continue
        yield Finding(
            ERROR,
            'strides',
            where,
            f'strides are {list(given)}, the feature maps have {list(expected)}',
            key=where,
            consequence='Boxes are looked for at wrong places and sizes: AP near 0, without a message.'
            if len(given) == len(expected)
            else 'An error about the number of levels, or levels that are left out.',
            remedy=f'{where}={list(expected)}',
        )


def _stride_lists(node: Any, where: str) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Keys and values of strides in heads."""
    if isinstance(node, (list, tuple)):
        for i, child in enumerate(node):
            yield from _stride_lists(child, f'{where}.{i}')
    if not isinstance(node, dict) or type_name(node) in _OTHER_MAPS:
        return
    key = where.rsplit('.', 1)[-1]
    if key in _GENERATORS and (given := _plain(node.get('strides'))):
        yield f'{where}.strides', given
    if given := _plain(node.get('featmap_strides')):
        yield f'{where}.featmap_strides', given
    if key in ('bbox_head', 'rpn_head') and (given := _plain(node.get('strides'))):
        yield f'{where}.strides', given
    for name, child in node.items():
        if name not in _OTHER_MAPS:
            yield from _stride_lists(child, f'{where}.{name}')


def _plain(strides: Any) -> tuple[float, ...]:
    """Strides as numbers; () where they are absent or differ between the axes."""
    if not isinstance(strides, (list, tuple)):
        return ()
    values = [s[0] if isinstance(s, (list, tuple)) and len(set(s)) == 1 else s for s in strides]
    return tuple(values) if all(isinstance(v, (int, float)) for v in values) else ()


def _measure(model: dict, scope: str) -> tuple[int, ...]:
    """Strides of the maps that backbone and neck put out; () where they cannot be built or run without data."""
    try:
        maps = _without_memory(lambda: _run(model, scope))
    except Exception:  # whatever a model of any package does; building it for training will say so
        return ()
    if not isinstance(maps, (list, tuple)) or not all(isinstance(m, torch.Tensor) and m.ndim == 4 for m in maps):
        return ()
    return tuple(round(_SIDE / m.shape[-1]) for m in maps)


def _run(model: dict, scope: str) -> Sequence[torch.Tensor]:
    neck = model.get('neck')
    maps: Any = torch.zeros(1, 3, _SIDE, _SIDE)
    with DefaultScope.overwrite_default_scope(scope):
        for config in (model['backbone'], *(neck if isinstance(neck, (list, tuple)) else [neck] if neck else [])):
            part = MODELS.build(_without_weights(config))
            part.eval()  # of which mmdet's networks return nothing
            maps = part(maps)
    return maps


def _without_weights(config: dict) -> dict:
    return {key: value for key, value in copy.deepcopy(dict(config)).items() if key not in ('init_cfg', 'pretrained')}


def _without_memory(function: Callable[[], Any]) -> Any:
    """`function()` on the meta device, where nothing is computed; it is left out where tensors must have values."""
    with torch.no_grad(), torch.device('meta'):
        return function()
