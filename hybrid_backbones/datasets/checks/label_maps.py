"""Do label maps hold the classes that the config names, one a pixel, and fit their images?"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .findings import ERROR, NOTE, WARNING, Finding, loss_severity
from .image_file import read_header
from .view import DatasetView, DataView, type_name

# Of the sampled label maps, how many are decoded, unless all are asked for.
_DECODED = 64
FIX = 'hybrid-backbones check-data CONFIG --fix OUT_DIR writes label maps where this is put right'


@dataclass
class LabelMap:
    """A label map as it stands in its file.

    Attributes:
        path: The file.
        image: Its image.
        size: Width and height.
        values: Its different values; of colours, rows of (R, G, B).
        shares: Share of the pixels that each value has.
        colours: Whether it holds colours, not values.
        format: Pillow's name of the file format.
    """

    path: Path
    image: Path
    size: tuple[int, int]
    values: np.ndarray
    shares: np.ndarray
    colours: bool
    format: str


def check_label_maps(data: DataView) -> Iterator[Finding]:
    """Findings about the label maps of every segmentation dataset."""
    checked = set()
    for dataset in data.datasets:
        if not dataset.is_segmentation or isinstance(dataset.records, Exception):
            continue
        key = (dataset.ann_file, *sorted(map(str, dataset.folders.values())), dataset.classes)
        if key not in checked:
            checked.add(key)
            yield from _check_dataset(dataset)


def label_pairs(dataset: DatasetView) -> list[tuple[Path, Path]]:
    """Images and label maps that a dataset lists."""
    return [
        (Path(record['img_path']), Path(record['seg_map_path']))
        for record in dataset.records
        if isinstance(record.get('seg_map_path'), str)
    ]


def _check_dataset(dataset: DatasetView) -> Iterator[Finding]:
    pairs = label_pairs(dataset)
    rows = dataset.sample(len(pairs))
    if not len(rows):
        return
    sampled = [pairs[i] for i in rows]
    folder = str(dataset.folders.get('seg_map_path') or sampled[0][1].parent)
    absent = [label for _, label in sampled if not label.is_file()]
    if absent:
        yield _missing(dataset, folder, sampled, absent, len(pairs))
    present = [pair for pair in sampled if pair[1].is_file() and pair[1].suffix != '.gz']
    decoded = present if dataset.data.full else present[:: max(1, -(-len(present) // _DECODED))]
    maps, broken = [], []
    for image, label in dataset.data.progress(decoded, desc=f'label maps of {dataset.where}'):
        try:
            maps.append(read_label_map(label, image))
        except (OSError, SyntaxError, ValueError) as error:
            broken.append((label, error))
    if broken:
        yield Finding(
            ERROR,
            'label-damaged',
            folder,
            f'label maps cannot be read: {broken[0][1]}',
            remedy='write them again',
            record=str(broken[0][0]),
            count=len(broken),
            total=len(decoded),
            consequence='Training ends at the first of them.',
        )
    if maps:
        yield from _check_kind(folder, maps)
        yield from _check_sizes(folder, maps)
        yield from _check_values(dataset, folder, [m for m in maps if not m.colours])
    yield from _check_loading(dataset)


def read_label_map(path: Path, image: Path) -> LabelMap:
    """Read a label map as MMSegmentation does: by Pillow, palettes as indices."""
    with Image.open(path) as file:
        kind = file.format
        array = np.asarray(file)
    if array.ndim == 3:
        flat = array[..., :3].reshape(-1, array.shape[-1])[:, :3].astype(np.uint32)
        codes, counts = np.unique(flat @ np.array([1 << 16, 1 << 8, 1], np.uint32)[: flat.shape[1]], return_counts=True)
        values = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], 1)
    elif array.dtype == np.uint8 or array.dtype == bool:
        counts = np.bincount(array.ravel().astype(np.uint8), minlength=256)
        values, counts = np.flatnonzero(counts), counts[counts > 0]
    else:
        values, counts = np.unique(array, return_counts=True)
    shares = counts / max(counts.sum(), 1)
    return LabelMap(path, image, (array.shape[1], array.shape[0]), values, shares, array.ndim == 3, kind or '')


def _missing(
    dataset: DatasetView, folder: str, sampled: list[tuple[Path, Path]], absent: list[Path], total: int
) -> Finding:
    of = f'{len(sampled)}' if len(sampled) == total else f'{len(sampled)} looked for, of {total}'
    examples = ', '.join(path.name for path in absent[:3]) + (', ...' if len(absent) > 3 else '')
    suffix = str(getattr(dataset.built, 'seg_map_suffix', '.png'))
    stem = absent[0].name.removesuffix(suffix)
    there = [p.name for p in sorted(Path(folder).rglob(f'{stem}*'))] if Path(folder).is_dir() else []
    if there and there[0] != absent[0].name:
        remedy = f'{there[0]} is there: {dataset.where}.seg_map_suffix={there[0].removeprefix(stem)!r}'
        deeper = next((p for p in Path(folder).rglob(absent[0].name)), None)
    else:
        deeper = next((p for p in Path(folder).rglob(absent[0].name)), None) if Path(folder).is_dir() else None
        remedy = (
            f'{deeper} is there: label maps lie in the same subfolders as images'
            if deeper
            else ('check data_prefix and seg_map_suffix, or complete the folder')
        )
    return Finding(
        ERROR,
        'label-missing',
        folder,
        f'{len(absent)} of the {of} labels of the images in {dataset.folders.get("img_path", dataset.root)} are not in '
        f'{folder}: {examples}',
        record=str(absent[0]),
        key='seg_map_suffix',
        count=len(absent),
        total=len(sampled),
        consequence='Training ends at the first of them.',
        remedy=remedy,
    )


def _check_kind(folder: str, maps: list[LabelMap]) -> Iterator[Finding]:
    coloured = [m for m in maps if m.colours]
    if coloured:
        colours = np.unique(np.concatenate([m.values for m in coloured]), axis=0)
        grey = (colours == colours[:, :1]).all()
        shown = ', '.join(map(str, [tuple(map(int, c)) for c in colours[:12]])) + (', ...' if len(colours) > 12 else '')
        kind = 'three equal channels' if grey else 'colours'
        yield Finding(
            ERROR,
            'label-colours',
            folder,
            f'label maps hold {kind}, not one class a pixel; found {len(colours)}: {shown}',
            record=str(coloured[0].path),
            count=len(coloured),
            total=len(maps),
            consequence='An error about shapes that names no file.',
            remedy=f'{FIX}; colours become classes by the palette of metainfo',
        )
    lossy = [m for m in maps if m.format in ('JPEG', 'WEBP') and not m.colours]
    if lossy:
        yield Finding(
            WARNING,
            'label-lossy',
            folder,
            f'label maps are {lossy[0].format} files',
            record=str(lossy[0].path),
            count=len(lossy),
            total=len(maps),
            consequence='Compression changes values along the borders of objects.',
            remedy='write them as PNG from their source',
        )


def _check_sizes(folder: str, maps: list[LabelMap]) -> Iterator[Finding]:
    differing = []
    for label in maps:
        try:
            size = read_header(label.image).upright
        except OSError:
            continue  # said by the check of images
        if size != label.size:
            differing.append((label, size))
    if differing:
        label, size = differing[0]
        how = 'transposed' if size == label.size[::-1] else 'of another size than their images'
        yield Finding(
            ERROR,
            'label-size',
            folder,
            f'label maps are {how}: {label.size[0]}x{label.size[1]}, the image {size[0]}x{size[1]}',
            record=str(label.path),
            count=len(differing),
            total=len(maps),
            consequence='An error about shapes that names no file, or labels in the wrong places.',
            remedy=f'{FIX}: resized by nearest neighbour, or transposed' if how != 'transposed' else FIX,
        )


def _label_rules(dataset: DatasetView) -> tuple[int, bool, int]:
    """Number of classes that label maps may hold, whether 0 is ignored, and the value that is ignored."""
    own = (getattr(dataset.cls, 'METAINFO', {}) or {}).get('classes')
    classes = own if getattr(dataset.built, 'label_map', None) and own else dataset.classes or ()
    return len(classes), _reduces_zero(dataset), int(getattr(dataset.built, 'ignore_index', 255))


def _reduces_zero(dataset: DatasetView) -> bool:
    """Whether 0 is ignored: MMSegmentation asks the dataset, MMDetection the transform."""
    if dataset.scope == 'mmdet':
        return any(transform.get('reduce_zero_label') for transform in dataset.transforms())
    return bool(getattr(dataset.built, 'reduce_zero_label', False))


def _check_values(dataset: DatasetView, folder: str, maps: list[LabelMap]) -> Iterator[Finding]:
    num_classes, reduce, ignored = _label_rules(dataset)
    if not maps or not num_classes:
        return
    first, last = (1, num_classes) if reduce else (0, num_classes - 1)
    allowed = {*range(first, last + 1), ignored, 255} | ({0} if reduce else set())
    present = {int(v) for m in maps for v in m.values}
    strange = [(m, [int(v) for v in m.values if int(v) not in allowed]) for m in maps]
    strange = [(m, values) for m, values in strange if values]
    if strange:
        yield _out_of_range(dataset, folder, strange, len(maps), (first, last, reduce, present))
    used = present & set(range(first, last + 1))
    yield from _check_one_class(folder, maps, used, present, num_classes)
    if reduce and not strange and num_classes > 1 and set(range(num_classes)) <= present and num_classes not in present:
        yield Finding(
            ERROR,
            'reduce-zero-label',
            dataset.where,
            f'values are 0 to {num_classes - 1}, and reduce_zero_label=True ignores 0 and shifts the others',
            key='reduce_zero_label',
            record=str(maps[0].path),
            consequence=f'{dataset.classes[0]!r} is ignored, and each other value gets the class before its own.',
            remedy=f'{dataset.where}.reduce_zero_label=False, and reduce_zero_label=False in LoadAnnotations',
        )
    blank = [m for m in maps if not (set(map(int, m.values)) & set(range(first, last + 1)))]
    if blank:
        yield Finding(
            ERROR if len(blank) == len(maps) else WARNING,
            'label-ignored',
            folder,
            'label maps are ignored everywhere',
            record=str(blank[0].path),
            count=len(blank),
            total=len(maps),
            consequence='Nothing is learned from them; their loss may be nan.',
            remedy='leave them out',
        )
    absent = [
        dataset.classes[v - first] for v in range(first, last + 1) if v not in used and v - first < len(dataset.classes)
    ]
    if absent and used and not getattr(dataset.built, 'label_map', None):
        yield Finding(
            NOTE,
            'class-without-pixels',
            folder,
            f'classes that occur in no label map looked at: {", ".join(absent[:8])}'
            + (', ...' if len(absent) > 8 else ''),
            count=len(absent),
            total=num_classes,
            consequence='They cannot be learned or measured there.',
        )


def _out_of_range(
    dataset: DatasetView, folder: str, strange: list, total: int, rules: tuple[int, int, bool, set[int]]
) -> Finding:
    first, last, reduce, present = rules
    values = sorted({v for _, vs in strange for v in vs})
    shown = ', '.join(map(str, values[:10])) + (', ...' if len(values) > 10 else '')
    remedy = f'name a class for each value, or {FIX}'
    if not reduce and values == [last + 1] and 0 in present:
        remedy = (
            f'values are 0 to {last + 1}: add the class of value 0 to classes, or ignore it by '
            f'{dataset.where}.reduce_zero_label=True'
        )
    elif len(present) == last - first + 1 and max(present) > last:
        remedy = f'{FIX}: values become classes in ascending order'
    wide = ' They are cut to 8 bits first.' if values[-1] > 255 else ''
    return Finding(
        ERROR,
        'label-values',
        folder,
        f'label maps hold {shown}; {dataset.where} has classes {first} to {last}'
        + (', 0 is ignored (reduce_zero_label)' if reduce else ''),
        record=str(strange[0][0].path),
        count=len(strange),
        total=total,
        consequence=f'An error about targets out of bounds that names no file, or silence.{wide}',
        remedy=remedy,
    )


def _check_one_class(
    folder: str, maps: list[LabelMap], used: set[int], present: set[int], num_classes: int
) -> Iterator[Finding]:
    if len(used) != 1:
        yield from _check_mixed(folder, maps)
        return
    masks = present == {0, 255}
    alone = 'the only class' if num_classes == 1 else f'class {next(iter(used))}'
    remedy = 'check the values, reduce_zero_label and classes'
    if num_classes == 1:
        remedy = 'name the background as a class of its own, the first: value 0'
    elif masks:
        remedy = f'{FIX}: 255 becomes class 1'
    yield Finding(
        ERROR,
        'label-one-class',
        folder,
        f'all pixels are of {alone} or ignored (values found: {sorted(present)[:10]})',
        record=str(maps[0].path),
        count=len(maps),
        total=len(maps),
        consequence='A network that always answers that class has mIoU 100.'
        + (' The masks are 0/255, and 255 is the value that is ignored.' if masks else ''),
        remedy=remedy,
    )


def _check_mixed(folder: str, maps: list[LabelMap]) -> Iterator[Finding]:
    """Masks of 0 and 255 among maps of classes none of which has ignored pixels."""
    values = [set(map(int, m.values)) for m in maps]
    masks = [m for m, own in zip(maps, values, strict=True) if own == {0, 255}]
    if masks and not any(255 in own for own in values if own != {0, 255}):
        yield Finding(
            loss_severity(len(masks), len(maps)),
            'label-mixed',
            folder,
            'some label maps are masks of 0 and 255, the others hold classes',
            record=str(masks[0].path),
            count=len(masks),
            total=len(maps),
            consequence='255 is the value that is ignored: what these masks show is not learned.',
            remedy='write them with the number of their class in place of 255',
        )


def _check_loading(dataset: DatasetView) -> Iterator[Finding]:
    """`LoadAnnotations` may be told what the dataset says otherwise."""
    reduce = _reduces_zero(dataset)
    for transform in dataset.transforms() if dataset.scope == 'mmseg' else ():
        given = transform.get('reduce_zero_label')
        if type_name(transform) == 'LoadAnnotations' and given is not None and bool(given) != reduce:
            yield Finding(
                ERROR,
                'reduce-zero-label',
                dataset.where,
                f'the dataset has reduce_zero_label={reduce}, its LoadAnnotations {given}',
                key='reduce_zero_label',
                consequence='MMSegmentation ends with an AssertionError.',
                remedy=f"dict(type='LoadAnnotations', reduce_zero_label={reduce})",
            )
