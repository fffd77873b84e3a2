"""Do the class names of a config agree with its annotation files, and the files with each other?"""

from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from ... import compat
from .coco_file import CocoFile
from .findings import ERROR, NOTE, WARNING, Finding
from .view import DatasetView, DataView, reads_text

_FIX = 'hybrid-backbones check-data CONFIG --fix OUT_DIR writes annotation files with the names of the config'


def check_class_names(data: DataView) -> Iterator[Finding]:
    """Findings about `metainfo` of every dataset and `categories` of every annotation file."""
    doubtful = set()
    for dataset in data.datasets:
        problems = list(_check_metainfo(dataset))
        yield from problems
        if any(finding.severity == ERROR for finding in problems):
            doubtful.add(dataset.classes)
    for dataset, file in data.coco_files(usable=False):
        if dataset.classes and dataset.classes not in doubtful:
            yield from _check_categories(dataset, file, dataset.classes)
    if not reads_text(data.cfg.get('model') or {}):
        yield from _check_between_datasets(data.datasets)


def _check_metainfo(dataset: DatasetView) -> Iterator[Finding]:
    where = f'{dataset.where}.metainfo'
    given = (dataset.config.get('metainfo') or {}).get('classes')
    if isinstance(given, str) and not Path(given).is_file():
        yield Finding(
            ERROR,
            'classes-text',
            where,
            f'classes is the text {given!r}, not a tuple of names',
            key='classes',
            consequence=f'Each of its letters becomes a class: label 0 is named {given[:1]!r}.',
            remedy=f'metainfo = dict(classes=({given!r},)), with the comma',
        )
        return
    classes = dataset.classes
    if classes is None:
        if not isinstance(dataset.built, Exception) and (dataset.is_segmentation or dataset.is_a('XMLDataset')):
            yield Finding(
                ERROR if dataset.split != 'train' else WARNING,
                'classes-missing',
                where,
                f'{dataset.name} has no classes of its own, and the config gives none',
                key='classes',
                consequence='Evaluation needs them.',
                remedy="metainfo = dict(classes=('first', 'second'), palette=[...])",
            )
        return
    problems = list(_check_names(where, classes))
    yield from problems
    if dataset.is_coco and not problems:
        yield from _check_blanks(where, classes)
    yield from _check_palette(dataset, where, classes)


def _check_names(where: str, classes: Sequence[str]) -> Iterator[Finding]:
    odd = [name for name in classes if not isinstance(name, str)]
    if odd:
        yield Finding(
            ERROR,
            'classes-text',
            where,
            f'classes holds {odd[0]!r}, which is no name',
            key='classes',
            remedy='write names as text',
        )
        return
    double = [name for name, count in Counter(classes).items() if count > 1]
    if double:
        yield Finding(
            ERROR,
            'classes-double',
            where,
            f'classes names {double[0]!r} more than once',
            key='classes',
            count=len(double),
            total=len(classes),
            consequence='Labels and names no longer correspond.',
            remedy='name each class once, and set num_classes of the heads accordingly',
        )


def _check_blanks(where: str, classes: Sequence[str]) -> Iterator[Finding]:
    blank = [name for name in classes if name != name.strip() or not name]
    if blank:
        yield Finding(
            WARNING,
            'classes-blank',
            where,
            f'the class name {blank[0]!r} has blanks around it',
            key='classes',
            consequence='It matches no category without them.',
            remedy=f'write {blank[0].strip()!r}',
        )


def _check_palette(dataset: DatasetView, where: str, classes: Sequence[str]) -> Iterator[Finding]:
    given = (dataset.config.get('metainfo') or {}).get('palette')
    palette = given if given is not None else dataset.meta.get('palette')
    if not isinstance(palette, (list, tuple)) or not palette or len(palette) == len(classes):
        return
    own = getattr(dataset.cls, 'METAINFO', {}) or {}
    subset = dataset.is_segmentation and set(classes) <= set(own.get('classes') or ())
    if len(palette) > len(classes) and (not dataset.is_segmentation or subset):
        return  # drawn with the first colours, or with those of the subset
    yield Finding(
        ERROR,
        'palette',
        where,
        f'palette has {len(palette)} colours for {len(classes)} classes',
        key='palette',
        consequence='Datasets of MMSegmentation refuse it, visualizers of MMDetection end with an AssertionError.',
        remedy=f'give {len(classes)} colours (R, G, B), or palette=None for drawn ones'
        if dataset.scope == 'mmdet'
        else f'give {len(classes)} colours (R, G, B)',
    )


def _check_categories(dataset: DatasetView, file: CocoFile, classes: Sequence[str]) -> Iterator[Finding]:
    if file.error or 'categories' in file.missing_keys:
        return  # said by the check of objects
    path = str(file.path)
    names = [category.get('name') for category in file.categories]
    yield from _check_category_records(file, names)
    double = [name for name, count in Counter(names).items() if count > 1 and name in classes]
    if double:
        yield Finding(
            ERROR,
            'category-double',
            path,
            f'categories names {double[0]!r} more than once',
            key='categories',
            record=f'ids {[c.get("id") for c in file.categories if c.get("name") == double[0]]}',
            count=len(double),
            total=len(names),
            consequence='There are more labels than classes: IndexError at the first validation.',
            remedy=_FIX,
        )
        return
    missing = [name for name in classes if name not in names]
    if missing:
        yield from _missing_names(dataset, path, classes, names, missing)
        return
    if not dataset.is_a('LVISV05Dataset'):
        yield from _check_order(path, classes, names)
    elif [c.get('name') for c in sorted(file.categories, key=lambda c: c.get('id'))] != list(classes):
        yield Finding(
            ERROR,
            'category-order',
            path,
            'categories, sorted by id, are not in the order of classes',
            key='categories',
            consequence=f'{dataset.name} numbers labels by id.',
            remedy='use CocoDataset, which is given the right order',
        )
    yield from _check_use(dataset, file, classes, names)


def _check_category_records(file: CocoFile, names: Sequence[str]) -> Iterator[Finding]:
    path = str(file.path)
    for key in ('id', 'name'):
        rows = [i for i, category in enumerate(file.categories) if category.get(key) is None]
        if rows:
            yield Finding(
                ERROR,
                'category-record',
                path,
                f'categories without {key}',
                key=f'categories.{key}',
                record=f'category {names[rows[0]]!r}',
                count=len(rows),
                total=len(names),
                remedy=_FIX,
                consequence='MMDetection ends with a KeyError.',
            )
    if len(file.category_index) < len(file.categories):
        ids = Counter(str(category.get('id')) for category in file.categories)
        yield Finding(
            ERROR,
            'category-record',
            path,
            'categories share an id',
            key='categories.id',
            record=f'id {ids.most_common(1)[0][0]}',
            consequence='Objects of both get one label.',
            remedy='give each category an id of its own',
        )


def _missing_names(
    dataset: DatasetView, path: str, classes: Sequence[str], names: Sequence[str], missing: Sequence[str]
) -> Iterator[Finding]:
    folded = {str(name).strip().casefold(): name for name in names}
    similar = {}
    for name in missing:
        if name.strip().casefold() in folded:
            similar[name] = folded[name.strip().casefold()]
        elif match := get_close_matches(name, [str(n) for n in names if n not in classes], n=1):
            similar[name] = match[0]
    said = '; '.join(f'{name!r}, but the file has {other!r}' for name, other in list(similar.items())[:3])
    given = 'metainfo' in dataset.config and 'classes' in (dataset.config.get('metainfo') or {})
    origin = '' if given else f' (the config gives no metainfo: these are the classes of {dataset.name} itself)'
    all_missing = len(missing) == len(classes)
    yield Finding(
        ERROR,
        'category-missing',
        path,
        f'categories does not have {_listed(missing)}{origin}' + (f': {said}' if said else ''),
        record=f'class {missing[0]!r}',
        key='categories.name',
        count=len(missing),
        total=len(classes),
        consequence='No object is read: "need at least one array to concatenate".'
        if all_missing
        else 'MMDetection numbers the others without it: labels shift, and validation ends in an IndexError.',
        remedy=f'metainfo = dict(classes={_tuple(names)}) in every dataset, or the names of the file changed: {_FIX}',
    )


def _check_order(path: str, classes: Sequence[str], names: Sequence[str]) -> Iterator[Finding]:
    order = [name for name in names if name in classes]
    if order == list(classes):
        return
    patched = compat.enabled()
    yield Finding(
        NOTE if patched else ERROR,
        'category-order',
        path,
        f'categories are listed as {_tuple(order, 6)}, classes as {_tuple(classes, 6)}',
        key='categories',
        consequence='Labels are numbered by classes, in training and evaluation. MMDetection on its own numbers them '
        'by the file: a checkpoint that it trained on this file has the order of the file.'
        if patched
        else 'MMDetection numbers labels by the file: names, and AP where files differ, are wrong.',
        remedy='' if patched else 'unset HYBRID_BACKBONES_COMPAT=0, or list classes in the order of the file',
    )


def _check_use(dataset: DatasetView, file: CocoFile, classes: Sequence[str], names: Sequence[str]) -> Iterator[Finding]:
    """Categories that the config leaves out, and classes that no annotation has."""
    path = str(file.path)
    counts = np.bincount(file.category_rows[file.category_rows >= 0], minlength=len(names))
    left_out = [(name, int(n)) for name, n in zip(names, counts, strict=True) if name not in classes]
    used = [(name, n) for name, n in left_out if n]
    if used:
        lost = sum(n for _, n in used)
        yield Finding(
            WARNING,
            'category-left-out',
            path,
            f'classes leaves out {_listed([name for name, _ in used])}',
            record=f'category {used[0][0]!r}',
            key='categories',
            count=lost,
            total=file.num_annotations,
            consequence='Their objects are background.',
            remedy=f'if they belong: metainfo = dict(classes={_tuple(names)})',
        )
    idle = [name for name, n in left_out if not n]
    if idle:
        yield Finding(
            NOTE,
            'category-unused',
            path,
            f'no annotation is of {_listed(idle)}, nor do classes name it',
            key='categories',
            count=len(idle),
            total=len(names),
            consequence='Nothing: exports list superclasses this way.',
        )
    empty = [name for name, n in zip(names, counts, strict=True) if name in classes and not n]
    if empty and file.num_annotations:
        superclass = {str(c.get('supercategory')) for c in file.categories}
        hint = next((name for name in empty if name in superclass), None)
        yield Finding(
            WARNING if hint and dataset.split == 'train' else NOTE,
            'class-without-objects',
            path,
            f'no annotation is of {_listed(empty)}',
            key='metainfo.classes',
            count=len(empty),
            total=len(classes),
            consequence='They cannot be learned or measured here; their AP is nan.',
            remedy=f'{hint!r} is the superclass of others: leave it out of classes' if hint else '',
        )


def _check_between_datasets(datasets: Sequence[DatasetView]) -> Iterator[Finding]:
    """All datasets of a config number their labels alike; those that are concatenated have equal `metainfo`."""
    known = [dataset for dataset in datasets if dataset.classes and not dataset.is_tracking]
    if not known:
        return
    first = known[0]
    for other in known[1:]:
        if other.classes == first.classes:
            continue
        same = set(other.classes) == set(first.classes)
        what = 'the same classes in another order' if same else 'other classes'
        renamed = not same and len(other.classes) == len(first.classes) and other.split != 'train'
        yield Finding(
            WARNING if renamed else ERROR,
            'classes-differ',
            f'{other.where}.metainfo',
            f'{what} than {first.where}',
            key='classes',
            consequence='One label has two names: the model is trained or measured on wrong labels.',
            remedy=f'metainfo = dict(classes={_tuple(first.classes)}) in both',
        )


def _listed(names: Sequence[str], most: int = 6) -> str:
    more = f', ... ({len(names)} in all)' if len(names) > most else ''
    return ', '.join(map(repr, names[:most])) + more


def _tuple(names: Sequence[str], most: int = 20) -> str:
    inner = ', '.join(map(repr, names[:most])) + (', ...' if len(names) > most else '')
    return f'({inner},)' if len(names) == 1 else f'({inner})'
