"""Are files and folders where the dataset class of a config looks for them?"""

import importlib.util
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mmengine.config import Config

from ..._tasks import is_segmentor
from .findings import ERROR, NOTE, Finding, loss_severity
from .view import DatasetView, DataView

_IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.gif')
# Classes whose records are in files of their own kind, or need packages of their own.
UNCHECKED = (
    *('DSDLDetDataset', 'DSDLSegDataset', 'DecathlonDataset', 'DODDataset'),
    *('RefCocoDataset', 'MDETRStyleRefCocoDataset', 'Flickr30kDataset'),
)

_COCO = """COCO 2017 is expected as
  {root}/
    annotations/instances_train2017.json, instances_val2017.json
    train2017/*.jpg
    val2017/*.jpg"""
_ADE20K = """ADE20K is expected as
  {root}/
    images/training/*.jpg, images/validation/*.jpg
    annotations/training/*.png, annotations/validation/*.png"""


def check_layouts(data: DataView) -> Iterator[Finding]:
    """Findings about folders, annotation files and what each dataset class lists."""
    for dataset in data.datasets:
        if dataset.cls is None:
            yield Finding(
                ERROR,
                'dataset-type',
                dataset.where,
                f'no dataset class {dataset.config.get("type")!r} is registered',
                key='type',
                remedy='check its spelling, or import it with custom_imports',
            )
            continue
        if dataset.is_a(*UNCHECKED):
            yield Finding(
                NOTE,
                'layout-unchecked',
                dataset.where,
                f'files, folders and images of {dataset.name} are looked for; its annotations are not checked',
                key='type',
            )
        problems = list(_check_places(dataset))
        yield from problems
        if not problems:
            yield from _check_listing(dataset)


def _check_places(dataset: DatasetView) -> Iterator[Finding]:
    what = f'{dataset.name} of {dataset.where}'
    remedy = 'check data_root and data_prefix, or add --data-root DIR'
    for key, folder in dataset.folders.items():
        if not folder.exists() and not _is_remote(folder):
            hint = _similar(folder)
            yield Finding(
                ERROR,
                'folder-missing',
                str(folder),
                f'no folder {folder} ({what})',
                key=f'data_prefix.{key}',
                remedy=f'{hint} is there; {remedy}' if hint else remedy,
            )
    file = dataset.ann_file
    if file is not None and not file.exists() and not _is_remote(file):
        hint = _similar(file)
        yield Finding(
            ERROR,
            'file-missing',
            str(file),
            f'no file {file} ({what})',
            key='ann_file',
            remedy=f'{hint} is there; {remedy}' if hint else remedy,
        )
    for key, value in dataset.config.items():
        if key.endswith('_file') and key != 'ann_file' and isinstance(value, str) and value:
            path = dataset.root / value
            if not path.exists() and not Path(value).exists() and key != 'extra_ann_file' and not _is_remote(path):
                yield Finding(ERROR, 'file-missing', str(path), f'no file {path} ({what})', key=key, remedy=remedy)


def _is_remote(path: Path) -> bool:
    return ':/' in str(path)


def _similar(path: Path) -> Path | None:
    """What lies beside a missing file or folder under the same name in another case or with another suffix."""
    if not path.parent.is_dir():
        return None
    return next((p for p in sorted(path.parent.iterdir()) if p.stem.casefold() == path.stem.casefold()), None)


def _check_listing(dataset: DatasetView) -> Iterator[Finding]:
    where = str(dataset.ann_file or next(iter(dataset.folders.values()), dataset.root))
    if dataset.coco is not None:
        if isinstance(dataset.built, Exception):
            yield _refused(dataset, where, dataset.built)
        elif dataset.is_a('LVISV05Dataset') and importlib.util.find_spec('lvis') is None:
            yield _refused(dataset, where, ImportError('pip install lvis'))
        return
    records = dataset.records
    if isinstance(records, Exception):
        yield _refused(dataset, where, records)
        return
    if not records:
        yield _empty(dataset)
        return
    yield from _check_instances(dataset, where, records)


def _refused(dataset: DatasetView, where: str, error: Exception) -> Finding:
    text = str(error).strip() or 'an assertion of its code'
    if dataset.name in UNCHECKED or isinstance(error, ImportError):
        return Finding(
            NOTE if dataset.name in UNCHECKED else ERROR,
            'layout-unsupported',
            where,
            f'{dataset.name} needs something that is not installed ({type(error).__name__}: {text[:300]})',
            remedy='install what it names',
        )
    return Finding(
        ERROR,
        'layout',
        where,
        f'{dataset.name} cannot read it ({type(error).__name__}: {text[:300]})',
        key=dataset.where,
        consequence='Training ends before it starts.',
        remedy='compare with the layout that its documentation shows',
    )


def _empty(dataset: DatasetView) -> Finding:
    """Nothing is listed: say which files are there instead."""
    folder = dataset.folders.get('img_path') or dataset.folders.get('img') or dataset.root
    suffix = str(getattr(dataset.built, 'img_suffix', ''))
    images = (
        Counter(p.suffix for p in folder.rglob('*') if p.suffix.lower() in _IMAGE_SUFFIXES) if folder.is_dir() else {}
    )
    remedy = 'complete the folder'
    if suffix and images:
        found, count = images.most_common(1)[0]
        remedy = f'{count} files *{found} are there: {dataset.where}.img_suffix={found!r}'
    return Finding(
        ERROR,
        'no-images',
        str(dataset.ann_file or folder),
        f'no *{suffix} in {folder}',
        key='img_suffix',
        consequence=f'{dataset.name} lists no image: nothing is trained or measured.',
        remedy=remedy,
    )


def _check_instances(dataset: DatasetView, where: str, records: list) -> Iterator[Finding]:
    """Objects of layouts other than COCO's, as the dataset class itself reads them."""
    frames = [frame for r in records if isinstance(r, dict) for frame in r.get('images', [r])]  # of videos
    lists = [frame['instances'] for frame in frames if isinstance(frame.get('instances'), list)]
    if not lists or dataset.is_a('CocoCaptionDataset', 'RefCocoDataset', 'MDETRStyleRefCocoDataset'):
        return
    instances = [i for objects in lists for i in objects]
    used = [i for i in instances if not i.get('ignore_flag')]
    if not used:
        classes = ', '.join(map(repr, (dataset.classes or ())[:6]))
        yield Finding(
            ERROR,
            'no-objects',
            where,
            f'{len(records)} images, and no object of the classes {classes}',
            count=0,
            total=len(instances),
            key='metainfo.classes',
            consequence=f'{dataset.name} leaves out objects of other names.',
            remedy='metainfo = dict(classes=...) with the names of the annotations',
        )
        return
    yield from _check_instance_boxes(where, used)
    labels = {i.get('bbox_label') for i in used}
    absent = [name for label, name in enumerate(dataset.classes or ()) if label not in labels]
    if absent and len(labels) and isinstance(next(iter(labels)), int):
        yield Finding(
            NOTE,
            'class-without-objects',
            where,
            f'no object is of {", ".join(map(repr, absent[:6]))}',
            count=len(absent),
            total=len(dataset.classes),
            consequence='They cannot be learned or measured here.',
        )


def _check_instance_boxes(where: str, instances: list[dict]) -> Iterator[Finding]:
    boxes = [i['bbox'] for i in instances if isinstance(i.get('bbox'), (list, tuple)) and len(i['bbox']) == 4]
    if not boxes:
        return
    x0, y0, x1, y1 = np.asarray(boxes, np.float64).T
    empty = (x1 <= x0) | (y1 <= y0)
    if empty.any():
        yield Finding(
            loss_severity(int(empty.sum()), len(boxes)),
            'box-empty',
            where,
            'boxes have no or negative width or height',
            record=f'box {boxes[int(np.flatnonzero(empty)[0])]}',
            count=int(empty.sum()),
            total=len(boxes),
            consequence='They break the loss of boxes, or are never matched.',
            remedy='correct or remove them',
        )


def expected_layout(cfg: Config, root: str | Path) -> str:
    """The files and folders that a config's task expects in the data folder `root`, over several lines."""
    return (_ADE20K if is_segmentor(cfg) else _COCO).format(root=root)


def missing_data_hint(data: DataView) -> list[str]:
    """Lines that end a report of missing files: the expected layout, and where to point elsewhere."""
    dataset = next(iter(data.datasets), None)
    root = str(dataset.root) if dataset and str(dataset.root) != '.' else 'data'
    example = f'hybrid_backbones::{"upernet" if is_segmentor(data.cfg) else "maskrcnn"}_conv2former_n_shapes.py'
    return [
        expected_layout(data.cfg, root),
        f'If it lies elsewhere, add --data-root DIR (or a link: ln -s DIR {root}).',
        f'To see everything run without downloads: hybrid-backbones train {example}',
    ]
