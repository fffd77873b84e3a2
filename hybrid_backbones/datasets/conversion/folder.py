"""The files of a folder: images by name, and the split that names of folders and files speak of."""

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from ..checks.image_file import read_header
from .errors import LayoutError, shortened

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
_SPLIT_WORDS = dict(
    train='train', training='train', val='val', valid='val', validation='val', test='test', testing='test'
)
_WORD = re.compile(r'([a-z]+?)(?:set)?\d*(?:annot)?')  # train2017, trainset, CamVid's trainannot


def split_in_name(name: str) -> str | None:
    """'train', 'val' or 'test' where a word of the name says so: `obj_train_data`, `instances_val2017`, `valid`."""
    words = (_WORD.fullmatch(word) for word in re.split(r'[^a-z0-9]+', name.lower()))
    return next((_SPLIT_WORDS[word[1]] for word in words if word and word[1] in _SPLIT_WORDS), None)


class Folder:
    """A folder of unknown layout; hidden files and those of macOS's archives are not looked at.

    Args:
        root: The folder.

    Raises:
        LayoutError: There is no such folder.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise LayoutError(f'no folder {root}; --data takes the folder of images and annotations, unpacked')

    @cached_property
    def files(self) -> list[Path]:
        found = (path for path in self.root.rglob('*') if path.is_file())
        return sorted(path for path in found if not any(self._skipped(part) for part in self.parts(path)))

    @staticmethod
    def _skipped(part: str) -> bool:
        return part.startswith('.') or part == '__MACOSX'

    def parts(self, path: Path) -> tuple[str, ...]:
        return path.relative_to(self.root).parts

    def with_suffix(self, *suffixes: str) -> Iterator[Path]:
        return (path for path in self.files if path.suffix.lower() in suffixes)

    @cached_property
    def images(self) -> list[Path]:
        return list(self.with_suffix(*IMAGE_SUFFIXES))

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        by_name = defaultdict(list)
        for path in self.images:
            by_name[path.name].append(path)
        return by_name

    @cached_property
    def by_stem(self) -> dict[str, list[Path]]:
        by_stem = defaultdict(list)
        for path in self.images:
            by_stem[path.stem].append(path)
        return by_stem

    def split_of(self, path: Path) -> str | None:
        """By the folders that the file is in, the innermost first."""
        return next(filter(None, map(split_in_name, reversed(self.parts(path)[:-1]))), None)

    def find_image(self, name: str, annotation: Path) -> Path | None:
        """The image that an annotation file names, wherever in the folder it is.

        Args:
            name: File name, with or without folders, as the annotation file has it.
            annotation: That file: among images of one name, that in its folder or of its split is meant.

        Raises:
            LayoutError: Several images fit equally well.
        """
        wanted = tuple(part for part in re.split(r'[\\/]', name) if part not in ('', '.', '..'))
        if not wanted:
            return None
        found = self._by_name.get(wanted[-1], [])
        if len(found) < 2:
            return found[0] if found else None
        split = split_in_name(annotation.stem) or self.split_of(annotation)

        def fit(path: Path) -> tuple[int, bool, bool]:
            pairs = zip(reversed(self.parts(path)), reversed(wanted), strict=False)
            same = next((i for i, (a, b) in enumerate(pairs) if a != b), len(wanted))
            return same, path.parent == annotation.parent, split is not None and self.split_of(path) == split

        found = sorted(found, key=fit, reverse=True)
        if fit(found[0]) == fit(found[1]):
            raise LayoutError(f'{annotation}: {name} may be {found[0]} or {found[1]}; write more of its path there')
        return found[0]

    def relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def image_size(path: Path, source: Path | None = None, width: Any = None, height: Any = None) -> tuple[int, int]:
    """Width and height.

    Args:
        path: The image.
        source: Its annotation file.
        width, height: What that says they are; None or 0 for nothing.

    Raises:
        LayoutError: No image, one that is cut short, or one of another size than its annotations are for.
    """
    try:
        header = read_header(path)
    except OSError as error:
        raise LayoutError(f'{path}: {error}; replace it, or take it and its annotations out of the folder') from error
    if header.damage:
        raise LayoutError(f'{path}: {header.damage}; replace it, or take it and its annotations out of the folder')
    said = tuple(round(float(value or 0)) for value in (width, height))
    if all(said) and said != header.upright:
        raise LayoutError(
            f'{source}: {path.name} is of {said[0]} x {said[1]} pixels there, and {header.upright[0]} x '
            f'{header.upright[1]} as a file; put the image that was annotated in its place, or correct the size'
        )
    return header.upright


def note_empty(count: int) -> list[str]:
    """A note on objects without extent, which are left out."""
    return [f'{count} objects left out: they have no width, no height or no area'] if count else []


def note_unlabelled(folder: Folder, unlabelled: list[Path], total: int, what: str) -> list[str]:
    """A note on images without `what`, which are left out.

    Raises:
        LayoutError: There are no others.
    """
    names = [folder.relative(path) for path in unlabelled]
    if len(unlabelled) == total:
        raise LayoutError(f'{folder.root}: none of {total} images has {what}: {shortened(names)}')
    return [f'left out, without {what}: {shortened(names)}'] if names else []
