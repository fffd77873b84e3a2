"""Are the images there, whole, of the size that the annotations say, and of a kind that is decoded as meant?"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mmcv
import numpy as np

from .findings import ERROR, LARGE_SHARE, NOTE, WARNING, Finding
from .image_file import ImageHeader, read_header, read_pixels
from .view import DatasetView, DataView, type_name

# Of the sampled files, how many are decoded too.
_DECODED = 24
_PLAIN_FORMATS = ('JPEG', 'PNG', 'BMP', 'MPO', 'PPM')


@dataclass(frozen=True)
class ImageRecord:
    """An image that a dataset lists; width and height as its annotations say, None where they say nothing."""

    path: Path
    width: float | None = None
    height: float | None = None


def check_images(data: DataView) -> Iterator[Finding]:
    """Findings about the image files of every dataset."""
    checked = set()
    for dataset in data.datasets:
        key = (dataset.ann_file, *sorted(map(str, dataset.folders.values())))
        if key not in checked:  # validation and test sets are mostly the same
            checked.add(key)
            yield from _check_dataset(dataset)
    for dataset in data.datasets:
        yield from check_second_images(dataset)


def _check_dataset(dataset: DatasetView) -> Iterator[Finding]:
    count, record = list_images(dataset)
    rows = dataset.sample(count)
    if not len(rows):
        return
    records = [record(int(row)) for row in dataset.data.progress(rows, desc=f'images of {dataset.where}')]
    source = str(dataset.ann_file or dataset.folders.get('img_path') or dataset.root)
    present = [r for r in records if r.path.is_file()]
    absent = [r for r in records if not r.path.is_file()]
    if absent:
        of = f'{len(records)}' if len(records) == count else f'{len(records)} looked for, of {count}'
        examples = ', '.join(r.path.name for r in absent[:3]) + (', ...' if len(absent) > 3 else '')
        yield Finding(
            ERROR,
            'image-missing',
            source,
            f'{len(absent)} of the {of} images that {source} names are not in {absent[0].path.parent}: {examples}',
            record=str(absent[0].path),
            count=len(absent),
            total=len(records),
            consequence='Training ends at the first of them.',
            remedy=_suffix_hint(absent[0].path),
        )
    yield from _check_files(dataset, source, present)


def list_images(dataset: DatasetView) -> tuple[int, Callable[[int], ImageRecord]]:
    """How many images a dataset lists, and a function that gives each of them."""
    file = dataset.coco
    if file is not None:
        folder = dataset.folders.get('img', dataset.root)
        names = [(row, dataset.file_name(image)) for row, image in enumerate(file.images)]
        named = [(row, name) for row, name in names if isinstance(name, str)]
        return len(named), lambda i: ImageRecord(
            folder / named[i][1], file.widths[named[i][0]], file.heights[named[i][0]]
        )
    records = dataset.records
    if isinstance(records, Exception):
        return 0, lambda row: ImageRecord(Path())
    frames = [frame for r in records if isinstance(r, dict) for frame in r.get('images', [r])]  # of videos
    listed = [frame for frame in frames if isinstance(frame, dict) and isinstance(frame.get('img_path'), str)]
    return len(listed), lambda i: ImageRecord(
        Path(listed[i]['img_path']), listed[i].get('width'), listed[i].get('height')
    )


def _suffix_hint(path: Path) -> str:
    """What lies in the folder instead, by suffix or deeper down."""
    if not path.parent.is_dir():
        return f'no folder {path.parent}: check data_root and data_prefix, or add --data-root DIR'
    twins = [p.name for p in path.parent.glob(f'{_escaped(path.stem)}.*')][:1]
    if twins:
        return f'{twins[0]} is there: names of the annotation file need its suffix'
    deeper = next(path.parent.rglob(path.name), None)
    if deeper is not None:
        return f'{deeper} is there: point data_prefix to {deeper.parent}'
    return 'check data_root and data_prefix, add --data-root DIR, or complete the folder'


def _escaped(name: str) -> str:
    return ''.join(f'[{c}]' if c in '*?[' else c for c in name)


def _check_files(dataset: DatasetView, source: str, records: list[ImageRecord]) -> Iterator[Finding]:
    headers: list[tuple[ImageRecord, ImageHeader]] = []
    broken: list[tuple[ImageRecord, str]] = []
    for i, record in enumerate(records):
        if record.path.suffix == '.gz':
            continue  # medical volumes
        try:
            header = read_header(record.path)
            damage = header.damage or (
                _decoding_error(dataset, record.path) if i < _DECODED or header.format not in _PLAIN_FORMATS else ''
            )
        except OSError as error:
            header, damage = None, str(error)
        if damage:
            broken.append((record, damage))
        elif header is not None:
            headers.append((record, header))
    if broken:
        yield Finding(
            ERROR,
            'image-damaged',
            source,
            f'images cannot be read: {broken[0][1]}',
            record=str(broken[0][0].path),
            count=len(broken),
            total=len(records),
            consequence='Training ends at the first of them.',
            remedy='fetch them again, convert them to JPEG or PNG, or take them out of the annotations',
        )
    yield from _check_sizes(dataset, source, headers)
    yield from _check_depth(source, headers)
    yield from _check_pages(source, headers)


def _loader(dataset: DatasetView) -> dict:
    return next((t for t in dataset.transforms() if type_name(t) == 'LoadImageFromFile'), {})


def _decoding_error(dataset: DatasetView, path: Path) -> str:
    """Why the transform that the pipeline reads images with cannot decode a file, '' if it can or is unknown."""
    loader = _loader(dataset)
    if not loader and any(type_name(t).startswith('Load') for t in dataset.transforms()):
        return ''
    backend = loader.get('imdecode_backend') or 'cv2'
    try:
        pixels = mmcv.imfrombytes(path.read_bytes(), flag=loader.get('color_type', 'color'), backend=backend)
    except Exception as error:  # decoders raise what they like
        return f'{backend} ends with {type(error).__name__}: {str(error).strip()[:100]}'
    return f'{backend} cannot decode it' if pixels is None else ''


def _check_sizes(
    dataset: DatasetView, source: str, headers: list[tuple[ImageRecord, ImageHeader]]
) -> Iterator[Finding]:
    ignores = 'ignore_orientation' in str(_loader(dataset).get('color_type', ''))
    kinds: dict[str, list[tuple[ImageRecord, tuple[int, int]]]] = {}
    turned = [record for record, header in headers if header.orientation != 1]
    known = [(record, header) for record, header in headers if (record.width or 0) > 0 and (record.height or 0) > 0]
    for record, header in known:
        loaded = header.stored if ignores else header.upright
        given = (int(record.width), int(record.height))
        if given != loaded:
            kinds.setdefault(_difference(given, loaded, header), []).append((record, loaded))
    for kind, found in kinds.items():
        record, loaded = found[0]
        remedy = {
            'rotated': "dict(type='LoadImageFromFile', color_type='color_ignore_orientation') if the annotations "
            'describe the pixels as stored, else turn the images',
            'swapped': 'hybrid-backbones check-data CONFIG --fix OUT_DIR exchanges width and height',
        }.get(kind, 'use the images that were annotated, or scale the annotations')
        text = {
            'rotated': 'images carry an EXIF orientation by which they are turned on reading; the file describes them '
            'as stored',
            'swapped': 'width and height are exchanged in the file',
            'scaled': 'images are scaled against the file',
        }.get(kind, 'images have another size than the file says')
        yield Finding(
            ERROR,
            f'image-{kind}',
            source,
            f'{text}: {int(record.width)}x{int(record.height)} in the file, {loaded[0]}x{loaded[1]} as read',
            record=str(record.path),
            key='width, height',
            count=len(found),
            total=len(known),
            consequence='Masks and boxes lie elsewhere than the objects.',
            remedy=remedy,
        )
    if turned and not kinds and not ignores:
        yield Finding(
            NOTE,
            'image-orientation',
            source,
            'images carry an EXIF orientation by which they are turned on reading',
            record=str(turned[0].path),
            count=len(turned),
            total=len(headers),
            consequence='Right if they were annotated upright, as viewers show them.',
        )


def _difference(given: tuple[int, int], loaded: tuple[int, int], header: ImageHeader) -> str:
    if given == loaded[::-1]:
        return 'rotated' if header.upright != header.stored else 'swapped'
    ratios = loaded[0] / given[0], loaded[1] / given[1]
    return 'scaled' if abs(ratios[0] / ratios[1] - 1) < 0.02 else 'size'


def _check_depth(source: str, headers: list[tuple[ImageRecord, ImageHeader]]) -> Iterator[Finding]:
    deep = [record for record, header in headers if header.bits >= 16]
    if not deep:
        return
    arrays = [read_pixels(record.path) for record in deep[:_DECODED]]
    largest = max((float(array.max()) for array in arrays if array is not None and array.size), default=65535.0)
    details = dict(record=str(deep[0].path), count=len(deep), total=len(headers))
    if largest < 65535 / 4:
        bits = int(np.ceil(np.log2(largest + 1)))
        yield Finding(
            ERROR,
            'image-depth',
            source,
            f'images are of 16 bits, but hold {bits}-bit values (at most {largest:.0f})',
            consequence=f'Reading drops the lower 8 bits: nearly black, {max(bits - 8, 0)} bits are left.',
            remedy=f'rewrite them as 8-bit files: pixels >> {max(bits - 8, 0)}',
            **details,
        )
    else:
        yield Finding(
            NOTE,
            'image-depth',
            source,
            'images are of 16 bits',
            consequence='They are read as 8 bits: the lower 8 are dropped.',
            **details,
        )


def _check_pages(source: str, headers: list[tuple[ImageRecord, ImageHeader]]) -> Iterator[Finding]:
    paged = [(record, header.pages) for record, header in headers if header.pages > 1]
    if paged:
        record, pages = paged[0]
        yield Finding(
            WARNING,
            'image-pages',
            source,
            f'files hold several images: {record.path.name} has {pages} pages',
            record=str(record.path),
            count=len(paged),
            total=len(headers),
            consequence='The first page alone is read.',
            remedy='write each page that is annotated to a file of its own',
        )


def check_second_images(dataset: DatasetView) -> Iterator[Finding]:
    """Change detection: the second image of each pair."""
    if not dataset.is_a('BaseCDDataset') or isinstance(dataset.records, Exception) or not dataset.records:
        return
    rows = dataset.sample(len(dataset.records))
    absent = [p for p in (dataset.records[i].get('img_path2') for i in rows) if p and not Path(p).is_file()]
    if absent:
        yield Finding(
            ERROR if len(absent) >= LARGE_SHARE * len(rows) else WARNING,
            'image-missing',
            str(dataset.folders.get('img_path2')),
            'second images of pairs are missing',
            record=str(absent[0]),
            count=len(absent),
            total=len(rows),
            consequence='Training ends at the first of them.',
            remedy='check data_prefix.img_path2 and img_suffix2',
        )
