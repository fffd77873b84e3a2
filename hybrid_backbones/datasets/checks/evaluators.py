"""Do evaluators read the files of their datasets, and is what the best checkpoint is chosen by measured at all?"""

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .findings import ERROR, NOTE, WARNING, Finding
from .view import DatasetView, DataView, type_name

_COCO_ITEMS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
_PROPOSAL_ITEMS = ('AR@100', 'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000', 'AR_l@1000')
_METRICS = {
    'CocoMetric': ('bbox', 'segm', 'proposal', 'proposal_fast'),
    'LVISMetric': ('bbox', 'segm', 'proposal', 'proposal_fast'),
    'IoUMetric': ('mIoU', 'mDice', 'mFscore'),
    'VOCMetric': ('mAP', 'recall'),
}
_IOU_NAMES = {
    'mIoU': ('mIoU', 'mAcc', 'aAcc'),
    'mDice': ('mDice', 'mAcc', 'aAcc'),
    'mFscore': ('mFscore', 'mPrecision', 'mRecall', 'aAcc'),
}
# Of `data_preprocessor`: pixels are 0 to 255.
_LARGEST_UNIT_VALUE = 5


def check_evaluators(data: DataView) -> Iterator[Finding]:
    """Findings about evaluators, `save_best` and `data_preprocessor`."""
    for split in data.splits:
        datasets = [dataset for dataset in data.datasets if dataset.split == split]
        for evaluator in data.evaluators(split):
            yield from _check_file(split, evaluator, datasets, data)
            yield from _check_metrics(split, evaluator)
            yield from _check_masks(split, evaluator, data.cfg.get('model') or {})
    if 'train' in data.splits and 'val' in data.splits:
        yield from _check_save_best(data)
    yield from _check_preprocessor(data.cfg.get('model') or {})


def _check_file(split: str, evaluator: dict, datasets: list[DatasetView], data: DataView) -> Iterator[Finding]:
    name = evaluator.get('ann_file')
    if not isinstance(name, str):
        return
    path, where = Path(name), f'{split}_evaluator.ann_file'
    if not path.is_file():
        if '://' not in name:
            yield Finding(
                ERROR,
                'file-missing',
                name,
                f'no file {name} ({where})',
                key='ann_file',
                remedy=_own_file(where, datasets),
            )
        return
    own = [dataset for dataset in datasets if dataset.coco is not None]
    if not own or any(dataset.ann_file.resolve() == path.resolve() for dataset in own):
        return
    file = data.coco_file(path)
    listed = set().union(*(dataset.coco.image_index for dataset in own))
    strangers = [i for i in listed if i not in file.image_index]
    same = not strangers and len(listed) == len(file.image_index) and _same_names(file, own[0].coco)
    yield Finding(
        NOTE if same else ERROR,
        'evaluator-file',
        name,
        f'{where} is not the annotation file of the dataset, '
        f'{own[0].ann_file}' + (', but lists the same images' if same else ''),
        key=where,
        record=f'image {strangers[0]!r}' if strangers else '',
        count=len(strangers),
        total=len(listed),
        consequence='Predictions are compared with the objects of other images: AP is near 0.'
        if not same
        else 'Ids are taken from one, images from the other.',
        remedy=_own_file(where, own),
    )


def _same_names(file: Any, other: Any) -> bool:
    """Whether two files give the same images the same names."""
    return all(
        image.get('file_name') == other.images[other.image_index[image.get('id')]].get('file_name')
        for image in file.images
        if image.get('id') in other.image_index
    )


def _own_file(where: str, datasets: list[DatasetView]) -> str:
    file = next((dataset.ann_file for dataset in datasets if dataset.ann_file), None)
    return f'{where}={str(file)!r}' if file else 'check its path'


def _values(value: Any) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _check_metrics(split: str, evaluator: dict) -> Iterator[Finding]:
    kind = type_name(evaluator)
    allowed = _METRICS.get(kind)
    key = 'iou_metrics' if kind == 'IoUMetric' else 'metric'
    if allowed is None or evaluator.get(key) is None:
        return
    for metric in _values(evaluator[key]):
        if metric not in allowed:
            match = get_close_matches(str(metric), allowed, n=1, cutoff=0.4)
            yield Finding(
                ERROR,
                'metric',
                f'{split}_evaluator.{key}',
                f'{kind} knows no metric {metric!r}: expected of {", ".join(allowed)}',
                key=key,
                consequence='It is refused, in part after the first validation only.',
                remedy=f'{split}_evaluator.{key}={match[0] if match else allowed[0]!r}',
            )
    if kind == 'CocoMetric':
        for item in _values(evaluator.get('metric_items') or []):
            if item not in _COCO_ITEMS + _PROPOSAL_ITEMS:
                yield Finding(
                    ERROR,
                    'metric',
                    f'{split}_evaluator.metric_items',
                    f'CocoMetric knows no item {item!r}',
                    key='metric_items',
                    consequence='KeyError at the first validation.',
                    remedy=f'of {", ".join(_COCO_ITEMS + _PROPOSAL_ITEMS)}',
                )


def _check_masks(split: str, evaluator: dict, model: dict) -> Iterator[Finding]:
    """`segm` is measured of models that put out masks."""
    metrics = _values(evaluator.get('metric'))
    if type_name(evaluator) not in ('CocoMetric', 'LVISMetric') or 'segm' not in metrics or not model:
        return
    if _finds_boxes_alone(model):
        left = [metric for metric in metrics if metric != 'segm'] or ['bbox']
        yield Finding(
            ERROR,
            'metric',
            f'{split}_evaluator.metric',
            f'segm measures masks, and {type_name(model)} has no head for them',
            key='metric',
            consequence="KeyError: 'segm is not in results' at the first validation.",
            remedy=f'{split}_evaluator.metric={left[0] if len(left) == 1 else left!r}',
        )


def _finds_boxes_alone(model: dict) -> bool:
    """Whether a model is a detector without masks, as far as its config shows."""
    if isinstance(model.get('roi_head'), dict):
        return not model['roi_head'].get('mask_head')
    head = model.get('bbox_head')
    with_masks = model.get('mask_head') or model.get('segm_head')
    return isinstance(head, dict) and not with_masks and not any(word in type_name(head) for word in ('Ins', 'Mask'))


def measured_names(evaluators: list[dict], classes: tuple[str, ...]) -> set[str] | None:
    """Names of all metrics that evaluators give, with their prefixes; None where one is not known."""
    names: set[str] = set()
    for evaluator in evaluators:
        kind = type_name(evaluator)
        if kind in ('CocoMetric', 'LVISMetric'):
            prefix = evaluator.get('prefix', 'coco' if kind == 'CocoMetric' else 'lvis')
            own = set(_coco_names(evaluator, classes))
        elif kind == 'IoUMetric':
            prefix = evaluator.get('prefix')
            own = {name for m in _values(evaluator.get('iou_metrics', 'mIoU')) for name in _IOU_NAMES.get(m, ())}
        elif kind in ('DumpDetResults', 'DumpResults'):
            continue
        else:
            return None
        names |= {f'{prefix}/{name}' if prefix else name for name in own}
    return names


def _coco_names(evaluator: dict, classes: tuple[str, ...]) -> Iterator[str]:
    for metric in _values(evaluator.get('metric', 'bbox')):
        if metric == 'proposal':
            yield from evaluator.get('metric_items') or _PROPOSAL_ITEMS
        elif metric == 'proposal_fast':
            yield from (f'AR@{n}' for n in evaluator.get('proposal_nums', (100, 300, 1000)))
        else:
            yield from (f'{metric}_{item}' for item in evaluator.get('metric_items') or _COCO_ITEMS)
            if type_name(evaluator) == 'LVISMetric':
                yield from (f'{metric}_AP{suffix}' for suffix in ('', '50', '75', 's', 'm', 'l', 'r', 'c', 'f'))
            if evaluator.get('classwise'):
                yield from (f'{name}_precision' for name in classes)


def _check_save_best(data: DataView) -> Iterator[Finding]:
    hook = (data.cfg.get('default_hooks') or {}).get('checkpoint') or {}
    wanted = [name for name in _values(hook.get('save_best')) if name and name != 'auto']
    classes = next((dataset.classes for dataset in data.datasets if dataset.split == 'val' and dataset.classes), ())
    known = measured_names(data.evaluators('val'), classes)
    for name in wanted:
        if not known or name in known:
            continue
        folded = next((k for k in known if k.casefold() == str(name).casefold()), None)
        match = [folded] if folded else get_close_matches(str(name), sorted(known), n=1, cutoff=0.3)
        yield Finding(
            ERROR,
            'save-best',
            'default_hooks.checkpoint.save_best',
            f'no evaluator gives {name!r}; val_evaluator gives ' + ', '.join(sorted(known)[:12]),
            key='save_best',
            consequence='The best checkpoint is never saved, or training ends at the first validation.',
            remedy=f'default_hooks.checkpoint.save_best={(match or sorted(known))[0]!r}',
        )


def _check_preprocessor(model: dict) -> Iterator[Finding]:
    where = 'model.data_preprocessor'
    options = model.get('data_preprocessor') or {}
    mean, std = options.get('mean'), options.get('std')
    if not isinstance(mean, (list, tuple)) or not isinstance(std, (list, tuple)) or not mean or not std:
        return
    if any(not value for value in std):
        yield Finding(
            ERROR,
            'normalisation',
            where,
            f'std={list(std)} holds 0',
            key='std',
            consequence='Every input is infinite or nan.',
            remedy='std=[58.395, 57.12, 57.375]',
        )
    elif max(map(abs, mean)) <= 1 and max(map(abs, std)) <= 1 and any(mean) and set(std) != {1}:
        scaled = f'mean={[round(255 * v, 3) for v in mean]}, std={[round(255 * v, 3) for v in std]}'
        yield Finding(
            ERROR,
            'normalisation',
            where,
            f'mean={list(mean)} and std={list(std)} are of pixels from 0 to 1',
            key='mean, std',
            consequence='Pixels are 0 to 255: inputs reach about 1000, and pretrained weights are of no use.',
            remedy=scaled,
        )
    elif max(map(abs, mean)) <= 1 and any(mean) and min(std) > _LARGEST_UNIT_VALUE:
        yield Finding(
            ERROR,
            'normalisation',
            where,
            f'mean={list(mean)} is of pixels from 0 to 1, std={list(std)} is not',
            key='mean',
            consequence='Inputs are not centred: pretrained weights see images that are too bright.',
            remedy=f'mean={[round(255 * v, 3) for v in mean]}',
        )
    elif max(mean) > _LARGEST_UNIT_VALUE and max(std) <= 1 and set(std) != {1}:
        yield Finding(
            ERROR,
            'normalisation',
            where,
            f'mean={list(mean)} is of pixels from 0 to 255, std={list(std)} is not',
            key='std',
            consequence='Inputs reach about 1000.',
            remedy=f'std={[round(255 * v, 3) for v in std]}',
        )
    elif len(mean) == 3 and len(set(std)) > 1:
        red_first, blue_first = mean[0] > 110 > mean[2], mean[0] < 110 < mean[2]
        turned = bool(options.get('bgr_to_rgb') or options.get('to_rgb'))
        if (red_first and not turned) or (blue_first and turned):
            orders = ('R, G, B', 'B, G, R')
            given, seen = orders if red_first else orders[::-1]
            yield Finding(
                WARNING,
                'normalisation',
                where,
                f'mean={list(mean)} is in the order {given}, and the model sees {seen}',
                key='bgr_to_rgb',
                consequence='Red is normalised as blue, and pretrained weights see other colours.',
                remedy=f'bgr_to_rgb={not turned}',
            )
