"""From a folder of any known layout to one of ours: `convert('exports/cats', 'detection', 'data/cats')`."""

import colorsys
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from . import coco, cvat, masks, voc, yolo
from .class_files import classes_of_arguments, find_class_file
from .errors import LayoutError, shortened
from .folder import Folder
from .records import SPLITS, RawData
from .splits import assign_splits
from .writing import BACKGROUND, write_detection, write_segmentation

LAYOUTS: dict[str, ModuleType] = dict(coco=coco, yolo=yolo, voc=voc, cvat=cvat, masks=masks)
# Of boxes alone, or of label maps alone.
_NOT_FOR = dict(detection=('masks',), segmentation=('voc',))
_OBJECTS = ('coco', 'voc', 'cvat')  # layouts whose own files name the classes


@dataclass(frozen=True)
class Converted:
    """What a config needs to know of a converted folder.

    Attributes:
        root: The folder written.
        layout: Name of the layout read.
        classes: Names, in the order of their numbers.
        palette: (R, G, B) of each.
        counts: Images by split, without splits that have none.
        sizes: Width and height of each training image.
        with_masks: Whether detectors can learn masks.
        suffix: Of the images' file names, for segmentation.
        notes: What was left out, and other things worth knowing.
    """

    root: Path
    layout: str
    classes: tuple[str, ...]
    palette: list[tuple[int, int, int]]
    counts: dict[str, int]
    sizes: list[tuple[int, int]]
    with_masks: bool
    suffix: str
    notes: list[str]


def read_folder(
    source: str | Path, task: str, layout: str | None = None, classes: Sequence[str] | None = None
) -> RawData:
    """Recognise the layout of a folder and read it.

    Args:
        source: The folder, which is not changed.
        task: 'detection' or 'segmentation'.
        layout: One of `LAYOUTS`, where a folder has several.
        classes: Names, or one file of them. Layouts that name their classes give objects of these alone.

    Raises:
        LayoutError: The layout is unknown, mixed, incomplete, or not one for the task.
    """
    folder = Folder(source)
    name, files = _recognize(folder, task, layout)
    entries = classes_of_arguments(classes) if classes else None
    if name == 'voc' and entries is None:
        entries = find_class_file(folder)
    data = LAYOUTS[name].read(folder, files, entries)
    if classes and name in _OBJECTS:
        _select(data, [entry.name for entry in entries])
    if name != 'masks':
        _count_objects(data, folder, task)
    return data


@contextmanager
def converted(
    source: str | Path,
    task: str,
    out: str | Path,
    layout: str | None = None,
    classes: Sequence[str] | None = None,
    val_share: float = 0.2,
    seed: int = 0,
) -> Iterator[Converted]:
    """A folder in the layout of COCO or ADE20K, which takes its place at `out` at the end of the block.

    Images are hard links, or symbolic ones, or copies, whichever the file system allows first. After an error, also
    one in the block, nothing is left.

    Args:
        source, task, layout, classes: As for :func:`read_folder`.
        out: Folder to write, which must not exist.
        val_share: Of the training images, where the folder has no validation split.
        seed: Of the random division.

    Raises:
        FileExistsError: `out` exists.
        LayoutError: As read_folder.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f'{out} exists; remove it, or name another folder')
    data = read_folder(source, task, layout, classes)
    assign_splits(data, val_share, seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp('.partial', f'.{out.name}.', out.parent))
    try:
        suffix = ''
        if task == 'detection':
            write_detection(data, temporary)
        else:
            suffix = write_segmentation(data, temporary)
        yield _summary(data, task, out, suffix)
        temporary.chmod(0o755)  # mkdtemp's are for their owner alone
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _recognize(folder: Folder, task: str, layout: str | None) -> tuple[str, list[Path]]:
    if layout is not None:
        files = LAYOUTS[layout].find(folder)
        if not files:
            raise LayoutError(
                f'{folder.root} is not of the layout {layout} ({LAYOUTS[layout].DESCRIPTION}); {_found(folder)}'
            )
        return layout, files
    found = {name: files for name, module in LAYOUTS.items() if (files := module.find(folder))}
    fitting = [name for name in found if name not in _NOT_FOR[task]]
    if len(fitting) > 1:
        listed = ', '.join(f'{name} ({shortened([folder.relative(p) for p in found[name]], 1)})' for name in fitting)
        raise LayoutError(f'{folder.root} is of several layouts: {listed}; choose one with --layout')
    if fitting:
        return fitting[0], found[fitting[0]]
    if found:
        other = 'segmentation' if task == 'detection' else 'detection'
        raise LayoutError(
            f'{folder.root} has {", ".join(found)} ({LAYOUTS[next(iter(found))].DESCRIPTION}), which is for {other} '
            f'alone; use --task {other}'
        )
    known = '\n'.join(f'  {name}: {module.DESCRIPTION}' for name, module in LAYOUTS.items())
    raise LayoutError(f'{folder.root} is of no known layout; {_found(folder)}. Known are\n{known}')


def _found(folder: Folder) -> str:
    suffixes = Counter(path.suffix.lower() or 'no suffix' for path in folder.files)
    if not suffixes:
        return 'it has no files'
    kinds = ', '.join(f'{count} x {suffix}' for suffix, count in suffixes.most_common(6))
    return f'found: {kinds}, such as {shortened([folder.relative(path) for path in folder.files], 2)}'


def _select(data: RawData, names: list[str]) -> None:
    """Keep the objects of some classes, numbered in their order."""
    if unknown := [name for name in names if name not in data.classes]:
        raise LayoutError(f'--classes {", ".join(unknown)}: the folder has {", ".join(data.classes)}')
    number = {data.classes.index(name): i for i, name in enumerate(names)}
    dropped = 0
    for image in data.images:
        kept = [item for item in image.objects if item.category in number]
        dropped += len(image.objects) - len(kept)
        for item in kept:
            item.category = number[item.category]
        image.objects = kept
    data.classes = tuple(names)
    data.notes += [f'{dropped} objects of other classes left out'] if dropped else []


def _count_objects(data: RawData, folder: Folder, task: str) -> None:
    """Fill in `amounts`, and see that there are objects fit for the task."""
    objects = [item for image in data.images for item in image.objects]
    if not objects:
        found = [f'{len(data.images)} images and no object in any of them', *data.notes]
        raise LayoutError(f'{folder.root}: {"; ".join(found)}')
    for image in data.images:
        image.amounts = dict(Counter(item.category for item in image.objects))
    outlined = sum(bool(item.segmentation) for item in objects)
    if task == 'segmentation':
        if not all(item.segmentation for item in objects):
            raise LayoutError(
                f'{folder.root}: {len(objects) - outlined} of {len(objects)} objects are boxes without an outline, of '
                'which no label map can be drawn; use --task detection'
            )
        data.classes = (BACKGROUND, *data.classes)
        for image in data.images:
            image.amounts = {0: 1} | {category + 1: n for category, n in image.amounts.items()}
    elif outlined and not data.with_masks:
        data.notes.append(f'{outlined} of {len(objects)} objects have an outline: boxes alone are learned')


def _summary(data: RawData, task: str, out: Path, suffix: str) -> Converted:
    of_split = Counter(image.split for image in data.images)
    sizes = [image.size for image in data.images if image.split == 'train']
    return Converted(
        root=out,
        layout=data.layout,
        classes=data.classes,
        palette=_palette(data),
        counts={split: of_split[split] for split in SPLITS if of_split[split]},
        sizes=sizes,
        with_masks=task == 'detection' and data.with_masks,
        suffix=suffix,
        notes=data.notes,
    )


def _palette(data: RawData) -> list[tuple[int, int, int]]:
    """The colours of label maps; else hues that are far apart, and grey for the background."""
    if data.coding and data.coding.by_colour:
        by_number = {number: colour for colour, number in data.coding.table.items()}
        if all(i in by_number for i in range(len(data.classes))):
            return [by_number[i] for i in range(len(data.classes))]
    hues = [colorsys.hsv_to_rgb(i * 0.618034 % 1, 0.75, 0.9) for i in range(len(data.classes))]
    palette = [tuple(round(255 * value) for value in hue) for hue in hues]
    if data.classes[0].casefold() == BACKGROUND:
        palette[0] = (120, 120, 120)
    return palette
