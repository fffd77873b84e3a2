"""Names of classes, with the pixel values or colours that stand for them, as the usual tools write them."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from ..checks.coco_file import read_text
from .errors import LayoutError
from .folder import Folder

# data.yaml of YOLO apart, which yolo.py reads itself.
FILE_NAMES = (
    'classes.txt', 'labels.txt', 'names.txt', 'obj.names', 'labelmap.txt', 'label_colors.txt', '_classes.csv',
    'class_dict.csv', 'classes.csv',
)  # fmt: skip
_COLOUR_FIRST = re.compile(r'(\d+)[\s,]+(\d+)[\s,]+(\d+)[\s,]+(\S.*)')  # 64 128 64   Animal
_COLOUR_LAST = re.compile(r'(.*?)\s*:\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\b.*')  # animal:64,128,64:parts:actions
# Names of what is to be left out of training and evaluation.
_LEFT_OUT = {'ignore', 'ignored', 'void', 'unlabeled', 'unlabelled'}


@dataclass(frozen=True)
class ClassEntry:
    """A class: its name, and the pixel value or the (R, G, B) that label maps have for it, where that is written."""

    name: str
    value: int | None = None
    colour: tuple[int, int, int] | None = None

    @property
    def is_left_out(self) -> bool:
        return self.name.strip().casefold() in _LEFT_OUT


def find_class_file(folder: Folder) -> tuple[ClassEntry, ...] | None:
    """The classes that a file in the folder lists; None if there is none.

    Raises:
        LayoutError: Two files differ, or one cannot be read.
    """
    found = [path for path in folder.files if path.name in FILE_NAMES]
    lists = {path: read_class_file(path) for path in found}
    for path, entries in lists.items():
        if entries != lists[found[0]]:
            raise LayoutError(f'{found[0]} and {path} list other classes; name the right file with --classes FILE')
    return lists[found[0]] if found else None


def classes_of_arguments(arguments: Sequence[str]) -> tuple[ClassEntry, ...]:
    """The classes of `--classes`: one file, or the names themselves.

    Raises:
        LayoutError: No such file, or the same name twice.
    """
    if len(arguments) == 1 and (Path(arguments[0]).is_file() or Path(arguments[0]).suffix in ('.txt', '.csv', '.yaml')):
        return read_class_file(Path(arguments[0]))
    return _checked('--classes', [ClassEntry(name) for name in arguments])


def read_class_file(path: Path) -> tuple[ClassEntry, ...]:
    """Read a list of names, a table of colours or values in CSV, CVAT's `labelmap.txt`, or `names` in YAML.

    Raises:
        LayoutError: There is no such file, or no names are in it.
    """
    if not path.is_file():
        raise LayoutError(
            f'no class file {path}; it has one name a line, or `NAME:R,G,B` where label maps have colours'
        )
    try:
        text = read_text(path)
    except UnicodeDecodeError as error:
        raise LayoutError(f'{path} is not in UTF-8 ({error}); save it in that encoding') from error
    if path.suffix in ('.yaml', '.yml'):
        return _checked(path, [ClassEntry(name) for name in names_in_yaml(path)])
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith('#')]
    if path.suffix == '.csv' and lines:
        return _checked(path, _rows(path, lines))
    return _checked(path, [_entry(line) for line in lines])


def names_in_yaml(path: Path) -> list[str]:
    """`names` of YOLO's data file, a list or numbers with names.

    Raises:
        LayoutError: It has none, or leaves numbers out.
    """
    names = (read_yaml(path) or {}).get('names')
    if isinstance(names, dict):
        numbers = sorted(names)
        if numbers != list(range(len(names))):
            raise LayoutError(f'{path}: names has the numbers {numbers}, expected 0 to {len(names) - 1}')
        names = [names[number] for number in numbers]
    if not isinstance(names, list) or not names:
        raise LayoutError(f'{path} has no `names`; write `names: [cat, dog]`, in the order of the class numbers')
    return [entry.name for entry in _checked(path, [ClassEntry(str(name)) for name in names])]


def read_yaml(path: Path) -> dict | None:
    """Content of a YAML file; None where it is no mapping.

    Raises:
        LayoutError: It cannot be parsed.
    """
    try:
        content = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LayoutError(f'{path} cannot be read: {" ".join(str(error).split())}') from error
    return content if isinstance(content, dict) else None


def _entry(line: str) -> ClassEntry:
    if match := _COLOUR_FIRST.fullmatch(line):
        return ClassEntry(match[4].strip(), colour=(int(match[1]), int(match[2]), int(match[3])))
    if match := _COLOUR_LAST.fullmatch(line):
        return ClassEntry(match[1], colour=(int(match[2]), int(match[3]), int(match[4])))
    return ClassEntry(line)


def _rows(path: Path, lines: list[str]) -> list[ClassEntry]:
    """Of a CSV with a header: `name, r, g, b` or `Pixel Value, Class`; without one, names or colours line by line."""
    header = [cell.strip().lower() for cell in next(csv.reader(lines[:1]))]
    name = next((key for key in ('name', 'class', 'label') if key in header), None)
    if name is None:
        return [_entry(line) for line in lines]
    entries = []
    for number, cells in enumerate(csv.reader(lines[1:]), 2):
        row = dict(zip(header, (cell.strip() for cell in cells), strict=False))
        try:
            colour = (int(row['r']), int(row['g']), int(row['b'])) if {'r', 'g', 'b'} <= row.keys() else None
            value = int(row['pixel value']) if 'pixel value' in row else None
            entries.append(ClassEntry(row[name], value, colour))
        except (KeyError, ValueError) as error:
            raise LayoutError(
                f'{path}, line {number}: {", ".join(cells)!r} does not fit {", ".join(header)}'
            ) from error
    return entries


def _checked(source: str | Path, entries: list[ClassEntry]) -> tuple[ClassEntry, ...]:
    names = [entry.name for entry in entries if not entry.is_left_out]
    if not names:
        raise LayoutError(f'{source} names no classes; write one name a line')
    if double := sorted({name for name in names if names.count(name) > 1}):
        raise LayoutError(f'{source} names {", ".join(double)} more than once')
    return tuple(entries)
