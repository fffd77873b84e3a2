"""Have the heads of a model as many outputs as its datasets have classes?"""

import inspect
from collections.abc import Iterator
from typing import Any

from mmengine.registry import MODELS

from .findings import ERROR, Finding
from .view import DatasetView, DataView, reads_text, type_name

# Parts of a model whose `num_classes` counts something else: images' classes, objects against background, "stuff",
# identities; or that are frozen as they come.
_OTHER_COUNTS = ('backbone', 'neck', 'rpn_head', 'semantic_head', 'reid', 'teacher', 'img_backbone', 'text_encoder')
# Boundary or region detection beside the classes.
_OTHER_TYPES = ('STDCHead', 'RPNHead', 'GARPNHead', 'CascadeRPNHead')


def check_heads(data: DataView) -> Iterator[Finding]:
    """Findings about `num_classes` of every head, given or by default."""
    model = data.cfg.get('model')
    dataset = next((dataset for dataset in data.datasets if dataset.classes and not dataset.is_tracking), None)
    if model is None or dataset is None or reads_text(model):
        return
    expected = len(dataset.classes)
    for where, given, implicit in _counts(model, 'model', data.scope):
        wanted = _wanted(where, dataset)
        if not wanted or (isinstance(given, int) and given in wanted):
            continue
        said = f'{given!r}, the default' if implicit else repr(given)
        yield Finding(
            ERROR,
            'num-classes',
            where,
            f'it is {said}, but {dataset.where} has {expected} classes',
            key='num_classes',
            consequence='Fewer outputs than classes: an error about targets out of bounds, or classes of AP 0. '
            'More: detections of classes that do not exist.',
            remedy=f'--cfg-options {where}={wanted[0]}, or the same in the config',
        )


def _wanted(where: str, dataset: DatasetView) -> list[int]:
    """Numbers that a head may have; panoptic heads count things and stuff together or apart."""
    things, stuff = dataset.meta.get('thing_classes'), dataset.meta.get('stuff_classes')
    key = where.rsplit('.', 1)[-1]
    if key == 'num_classes':
        return [len(dataset.classes)] + ([len(things)] if things else [])
    if things is None or stuff is None:
        return []
    return [len(things) if key == 'num_things_classes' else len(stuff)]


def _counts(node: Any, where: str, scope: str) -> Iterator[tuple[str, Any, bool]]:
    """Keys and values of `num_classes` and its kin; and whether the value is a default."""
    if isinstance(node, (list, tuple)):
        for i, child in enumerate(node):
            yield from _counts(child, f'{where}.{i}', scope)
        return
    if not isinstance(node, dict) or type_name(node) in _OTHER_TYPES:
        return
    for key in ('num_classes', 'num_things_classes', 'num_stuff_classes'):
        if isinstance(node.get(key), (int, float, str)):
            yield f'{where}.{key}', node[key], False
    if 'num_classes' not in node and 'head' in '.'.join(where.split('.')[-2:]) and 'type' in node:
        default = _default(node, scope)
        if default is not None:
            yield f'{where}.num_classes', default, True
    for key, child in node.items():
        if key not in _OTHER_COUNTS:
            yield from _counts(child, f'{where}.{key}', scope)


def _default(node: dict, scope: str) -> int | None:
    """Default of `num_classes` of the class that a config names, which may stand in a class that it inherits from."""
    kind = node.get('type')
    if isinstance(kind, str):
        with MODELS.switch_scope_and_registry(scope) as registry:
            kind = registry.get(kind)
    if not inspect.isclass(kind):
        return None
    for base in kind.__mro__:
        init = base.__dict__.get('__init__')
        parameters = inspect.signature(init).parameters if inspect.isfunction(init) else {}
        if 'num_classes' in parameters:
            default = parameters['num_classes'].default
            return default if isinstance(default, int) else None
        takes_more = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        if parameters and not takes_more:
            return None
    return None
