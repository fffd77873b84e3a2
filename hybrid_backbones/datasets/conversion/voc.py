"""Pascal VOC's XML files, one for each image, also as labelImg, CVAT and Roboflow write them: boxes."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from ..checks.coco_file import read_text
from .class_files import ClassEntry
from .errors import LayoutError
from .folder import Folder, image_size, note_empty, note_unlabelled
from .records import RawData, RawImage, RawObject

DESCRIPTION = 'Pascal VOC: NAME.xml for each NAME.jpg, in Annotations/ or beside it, with ImageSets/Main or without'
_HEAD = 400  # characters in which the root element begins


def parse_xml(path: Path) -> ElementTree.Element:
    """Root of an XML file.

    Raises:
        LayoutError: It is not intact.
    """
    try:
        return ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise LayoutError(f'{path} is no intact XML: {error}') from error


def has_root(path: Path, tag: str) -> bool:
    """Whether an XML file begins with the element `tag`."""
    with path.open('rb') as file:
        head = file.read(_HEAD)
    return any(f'<{tag}{end}'.encode() in head for end in ('>', ' ', '\n', '\r'))


def find(folder: Folder) -> list[Path]:
    """The annotation files."""
    return [path for path in folder.with_suffix('.xml') if has_root(path, 'annotation')]


def read(folder: Folder, files: list[Path], names: Sequence[ClassEntry] | None) -> RawData:
    """Read all files; the classes are those of `names`, else those that occur, by the alphabet.

    Raises:
        LayoutError: A file is broken, or its image is missing.
    """
    roots = {_image_of(folder, file, root := parse_xml(file)): (file, root) for file in files}
    found = sorted({_name(file, item) for file, root in roots.values() for item in root.iter('object')})
    classes = tuple(entry.name for entry in names) if names else tuple(found)
    classes += tuple(name for name in found if name not in classes)
    # VOC counts pixels from 1; where a box begins at 0, its tool counts from 0.
    corners = [_corner(file, item) for file, root in roots.values() for item in root.iter('object')]
    first = 0 if any(min(box[:2]) < 1 for box in corners) else 1
    splits = image_sets(folder)
    images, empty = [], 0
    for path in sorted(roots):
        file, root = roots[path]
        objects = [_object(file, item, classes, first) for item in root.iter('object')]
        split = splits.get(path.stem) or folder.split_of(path)
        empty += objects.count(None)
        size = image_size(path, file, root.findtext('size/width'), root.findtext('size/height'))
        images.append(RawImage(path, size, split, [item for item in objects if item]))
    unlabelled = [path for path in folder.images if path not in roots and not _is_mask(folder, path)]
    notes = note_unlabelled(folder, unlabelled, len(folder.images), 'XML file') + note_empty(empty)
    return RawData('Pascal VOC', classes, images, notes)


def _is_mask(folder: Folder, path: Path) -> bool:
    return any(part.startswith('Segmentation') for part in folder.parts(path))


def _image_of(folder: Folder, file: Path, root: ElementTree.Element) -> Path:
    """By the name of the XML file, which is right where people renamed files; else by the name within."""
    named = root.findtext('filename', '')
    same = [path for path in folder.by_stem.get(file.stem, []) if not _is_mask(folder, path)]
    image = folder.find_image(same[0].name if same else named, file)
    if image is None:
        raise LayoutError(f'{file}: neither {file.stem}.* nor {named!r} is an image in {folder.root}')
    return image


def image_sets(folder: Folder) -> dict[str, str]:
    """Splits by the name of the image without suffix, from ImageSets/*/{train,val,test}.txt."""
    splits = {}
    for path in folder.with_suffix('.txt'):
        if path.stem in ('train', 'val', 'test') and 'ImageSets' in folder.parts(path):
            names = [line.split()[0] for line in read_text(path).splitlines() if line.strip()]
            splits.update({Path(name).stem if '/' in name else name: path.stem for name in names})
    return splits


def _text(item: ElementTree.Element, key: str) -> str:
    return (item.findtext(key) or '').strip()


def _name(file: Path, item: ElementTree.Element) -> str:
    if name := _text(item, 'name'):
        return name
    raise LayoutError(f'{file}: an object has no name of its class')


def _corner(file: Path, item: ElementTree.Element) -> tuple[float, ...]:
    try:
        return tuple(float(item.findtext(f'bndbox/{key}')) for key in ('xmin', 'ymin', 'xmax', 'ymax'))
    except (TypeError, ValueError):
        raise LayoutError(
            f'{file}: an object ({_text(item, "name")}) has no complete bndbox of xmin, ymin, xmax, ymax'
        ) from None


def _object(file: Path, item: ElementTree.Element, classes: tuple[str, ...], first: int) -> RawObject | None:
    """The object; None for one of no extent."""
    left, top, right, bottom = (value - first for value in _corner(file, item))
    if right <= left or bottom <= top:
        return None
    box = (left, top, right - left, bottom - top)
    return RawObject(classes.index(_text(item, 'name')), box, ignored=_text(item, 'difficult') == '1')
