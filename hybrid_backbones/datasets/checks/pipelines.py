"""Do pipelines load what the model learns from, pack it, and leave the images of an evaluation as they are?"""

import inspect
from collections.abc import Iterator
from typing import Any

from mmengine.registry import TRANSFORMS

from .findings import ERROR, Finding
from .view import DatasetView, DataView, type_name

# Packages whose transforms are known by their names: one of another package may load or pack under any name.
_KNOWN = ('mmcv', 'mmengine', 'mmdet', 'mmseg', 'hybrid_backbones')
# The transforms inside are another library's.
_FOREIGN = ('Albu',)
# Predictions are taken back to the image as it was.
_UNDONE = ('TestTimeAug',)
_MIXING = ('Mosaic', 'MixUp', 'CopyPaste')
# Models of these learn from masks without a part called mask_head; those of the second learn masks from boxes.
_MASK_MODELS = ('MaskFormer', 'Mask2Former', 'Mask2FormerVideo', 'RTMDetInsHead', 'RTMDetInsSepBNHead')
_MASKS_FROM_BOXES = ('BoxInst', 'BoxInstMaskHead')
# Models of whole images, whose label is in the record.
_WITHOUT_ANNOTATIONS = ('BaseReID', 'ImageClassifier')


def check_pipelines(data: DataView) -> Iterator[Finding]:
    """Findings about the transforms of every dataset."""
    model = data.cfg.get('model') or {}
    for dataset in data.datasets:
        transforms = list(_flat([dataset.config.get('pipeline'), *dataset.outer]))
        if not transforms:
            continue
        if dataset.split != 'train':
            yield from _check_chance(dataset)
        if model and all(_is_known(transform, dataset.scope) for transform in transforms):
            yield from _check_packing(dataset, transforms)
            if dataset.split == 'train':
                yield from _check_loading(dataset, transforms, model)
            else:
                yield from _check_truth(dataset, transforms)


def _flat(node: Any, closed: tuple[str, ...] = _FOREIGN) -> Iterator[dict]:
    """Transforms in their order, those inside others too but for the types `closed`."""
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from _flat(child, closed)
    elif isinstance(node, dict):
        if 'type' in node:
            yield node
        if type_name(node) not in closed:
            yield from _flat(list(node.values()), closed)


def _is_known(transform: dict, scope: str) -> bool:
    kind = transform['type']
    if isinstance(kind, str):
        with TRANSFORMS.switch_scope_and_registry(scope) as registry:
            kind = registry.get(kind)
    return inspect.isclass(kind) and kind.__module__.split('.')[0] in _KNOWN


def _loads_annotations(transform: dict) -> bool:
    name = type_name(transform)
    return (name.startswith('Load') and 'Annotation' in name) or name == 'LoadBiomedicalData'


def _check_packing(dataset: DatasetView, transforms: list[dict]) -> Iterator[Finding]:
    if not any(type_name(transform).startswith('Pack') for transform in transforms):
        name = 'PackSegInputs' if dataset.scope == 'mmseg' else 'PackDetInputs'
        yield Finding(
            ERROR,
            'pipeline-packing',
            f'{dataset.where}.pipeline',
            f'no {name}: the model is given neither inputs nor data samples',
            consequence='An error of the data preprocessor about a missing key, at the first batch.',
            remedy=f'as the last of the pipeline: dict(type={name!r})',
        )


def _check_loading(dataset: DatasetView, transforms: list[dict], model: dict) -> Iterator[Finding]:
    if type_name(model) in _WITHOUT_ANNOTATIONS:
        return
    where = f'{dataset.where}.pipeline'
    needs = _needs(model) if dataset.scope == 'mmdet' else {}
    line = ', '.join(["dict(type='LoadAnnotations'", *(f'{key}=True' for key in needs)]) + ')'
    loaders = [transform for transform in transforms if _loads_annotations(transform)]
    if not loaders:
        yield Finding(
            ERROR,
            'pipeline-annotations',
            where,
            'no LoadAnnotations: the model has nothing to learn from',
            consequence='An error about a missing attribute at the first batch, which names no file.',
            remedy=f'after LoadImageFromFile: {line}',
        )
        return
    if any(type_name(loader) == 'LoadEmptyAnnotations' for loader in loaders):
        return  # images without labels, of semi-supervised training
    for key, reader in needs.items():
        if not any(loader.get(key, _default(loader, key)) for loader in loaders):
            yield Finding(
                ERROR,
                'pipeline-annotations',
                where,
                f'{type_name(loaders[0])} does not read what {reader} learns from: {key} is False',
                key=key,
                consequence='An error about a missing attribute at the first batch, which names no file.',
                remedy=line,
            )


def _default(loader: dict, key: str) -> bool:
    return key == 'with_bbox' or type_name(loader) == 'LoadPanopticAnnotations'


def _needs(model: dict) -> dict[str, str]:
    """Options of LoadAnnotations that a detector needs, each with the key or type of the part that needs it."""
    found: dict[str, str] = {}
    for where, node in _parts(model, 'model'):
        key, kind = where.rsplit('.', 1)[-1], type_name(node)
        if key in ('rpn_head', 'roi_head', 'bbox_head'):
            found.setdefault('with_bbox', where)
        if kind in _MASK_MODELS or (key == 'mask_head' and kind not in _MASKS_FROM_BOXES):
            found.setdefault('with_mask', where)
        if key == 'semantic_head':
            found.setdefault('with_seg', where)
    return found


def _parts(node: Any, where: str) -> Iterator[tuple[str, dict]]:
    """Configs of a model and of its parts that learn, with their keys."""
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from _parts(child, where)
    elif isinstance(node, dict) and type_name(node) not in _WITHOUT_ANNOTATIONS:
        if 'type' in node:
            yield where, node
        for key, child in node.items():
            if not key.startswith('teacher'):
                yield from _parts(child, f'{where}.{key}')


def _check_truth(dataset: DatasetView, transforms: list[dict]) -> Iterator[Finding]:
    """Evaluators that compare with what the pipeline loads get it, at its own size."""
    evaluator = next((e for e in dataset.data.evaluators(dataset.split) if _reads_samples(e)), None)
    if evaluator is None:
        return
    where, metric = f'{dataset.where}.pipeline', type_name(evaluator)
    remedy = "dict(type='LoadAnnotations'), after Resize and before the packing"
    loaders = [i for i, transform in enumerate(transforms) if _loads_annotations(transform)]
    if not loaders:
        yield Finding(
            ERROR,
            'pipeline-annotations',
            where,
            f'no LoadAnnotations, and {metric} compares with what it loads',
            consequence='KeyError at the first validation, and training ends with it.',
            remedy=remedy,
        )
    elif any('Resize' in type_name(transform) for transform in transforms[loaders[0] :]):
        yield Finding(
            ERROR,
            'pipeline-order',
            where,
            f'annotations are loaded before Resize, and {metric} compares predictions at the size of the file',
            consequence='Boxes and label maps are resized with the image: an error about shapes, or scores near 0.',
            remedy=remedy,
        )


def _reads_samples(evaluator: dict) -> bool:
    """Whether a metric takes the truth from data samples, not from a file of its own."""
    kind = type_name(evaluator)
    if evaluator.get('format_only'):
        return False
    return kind in ('IoUMetric', 'VOCMetric') or (kind == 'CocoMetric' and not evaluator.get('ann_file'))


def _check_chance(dataset: DatasetView) -> Iterator[Finding]:
    for transform in _flat([dataset.config.get('pipeline'), *dataset.outer], _FOREIGN + _UNDONE):
        if _is_random(transform):
            name = type_name(transform)
            yield Finding(
                ERROR,
                'pipeline-random',
                f'{dataset.where}.pipeline',
                f'{name} changes the images that are evaluated by chance',
                key=name,
                consequence='Predictions are compared with the truth of images that were not changed, or scores '
                'differ from run to run.',
                remedy=f'leave {name} out of the pipeline'
                + (", or dict(type='Resize', ...)" if 'Resize' in name else ''),
            )


def _is_random(transform: dict) -> bool:
    name = type_name(transform)
    if not (name.startswith(('Random', 'MinIoURandom', 'BioMedicalRandom')) or name.endswith(_MIXING)):
        return False
    fixed = name.endswith('Resize') and not transform.get('ratio_range') and _is_one_scale(transform)
    return not (fixed or transform.get('test_mode') or transform.get('prob') == 0)


def _is_one_scale(transform: dict) -> bool:
    scales = transform.get('scales', transform.get('scale')) or ()
    return not scales or not isinstance(scales[0], (list, tuple)) or len(scales) == 1
