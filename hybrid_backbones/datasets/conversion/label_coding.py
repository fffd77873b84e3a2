"""How pixels of label maps are translated to class numbers: by value, by colour, or as they are."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .class_files import ClassEntry
from .errors import LayoutError

Colour = tuple[int, int, int]
IGNORED = 255  # value of pixels that no loss and no metric counts
_SHOWN = 12  # values or colours in a message


@dataclass
class LabelPixels:
    """How often each value, or (R, G, B) colour, is in a label map.

    Attributes:
        size: Width and height.
        mode: Pillow's name of its channels.
        values: Of a map of one channel, of palette indices, or of colours that all are grey; None for others.
        colours: Of a map of colours, or of palette indices as colours; None for others.
    """

    size: tuple[int, int]
    mode: str
    values: Counter[int] | None
    colours: Counter[Colour] | None


def read_map(path: Path, as_colours: bool = False) -> np.ndarray:
    """(H, W) values, or (H, W, 3) colours of a map that has them.

    Args:
        as_colours: Give the colours of a palette, not its indices.

    Raises:
        LayoutError: It is no image that can be read.
    """
    try:
        with Image.open(path) as image:
            if image.mode == '1':
                return np.asarray(image).astype(np.uint8)
            if image.mode in ('L', 'I', 'I;16') or (image.mode == 'P' and not as_colours):
                return np.asarray(image)
            return np.asarray(image.getchannel(0) if image.mode == 'LA' else image.convert('RGB'))
    except (OSError, SyntaxError, ValueError) as error:
        raise LayoutError(f'{path} is no label map that can be read: {error}') from error


def count_pixels(path: Path) -> LabelPixels:
    """What is in a label map.

    Raises:
        LayoutError: It is no image that can be read.
    """
    with Image.open(path) as image:
        size, mode = image.size, image.mode
    array = read_map(path, as_colours=True)
    if array.ndim == 2:
        return LabelPixels(size, mode, _count(array), None)
    packed = array.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours = Counter({(c >> 16, c >> 8 & 255, c & 255): n for c, n in _count(packed).items()})
    if mode == 'P':
        return LabelPixels(size, mode, _count(read_map(path)), colours)
    grey = all(r == g == b for r, g, b in colours)
    return LabelPixels(size, mode, Counter({c[0]: n for c, n in colours.items()}) if grey else None, colours)


def _count(array: np.ndarray) -> Counter[int]:
    if array.dtype == np.uint8:
        counts = np.bincount(array.ravel())
        values = np.flatnonzero(counts)
        counts = counts[values]
    else:
        values, counts = np.unique(array, return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))


@dataclass(frozen=True)
class LabelCoding:
    """Class number, or 255 for what is left out, of each value or of each colour that label maps have."""

    table: dict[int, int] | dict[Colour, int]
    by_colour: bool

    def keeps(self, path: Path, pixels: LabelPixels) -> bool:
        """Whether the map's file is right as it is: a PNG with one channel of 8 bits, of class numbers."""
        if path.suffix.lower() != '.png' or pixels.mode != 'L' or self.by_colour:
            return False
        return all(self.table[value] == value for value in pixels.values)

    def amounts(self, pixels: LabelPixels) -> dict[int, int]:
        """Pixels of each class."""
        amounts: Counter[int] = Counter()
        for key, count in (pixels.colours if self.by_colour else pixels.values).items():
            amounts[self.table[key]] += count
        amounts.pop(IGNORED, None)
        return dict(amounts)

    def encode(self, path: Path) -> np.ndarray:
        """(H, W) uint8 class numbers of a label map."""
        array = read_map(path, self.by_colour)
        if array.ndim == 3 and not self.by_colour:
            array = array[..., 0]
        if array.ndim == 2 and self.by_colour:
            array = np.repeat(array[..., None], 3, axis=2)
        labels = np.full(array.shape[:2], IGNORED, np.uint8)
        for key, number in self.table.items():
            labels[(array == key).all(-1) if self.by_colour else array == key] = number
        return labels


def choose_coding(
    where: Path, maps: Sequence[LabelPixels], entries: Sequence[ClassEntry] | None
) -> tuple[LabelCoding, tuple[str, ...]]:
    """Coding and class names that explain all pixels of all maps.

    Args:
        where: The folder, for messages.
        maps: What is in them.
        entries: Names, with values or colours or without; None if nobody said them.

    Raises:
        LayoutError: Names or colours are unknown, or do not fit the pixels.
    """
    has_colours = any(entry.colour is not None for entry in entries or ())
    needs_colours = any(pixels.values is None for pixels in maps)
    paletted = all(pixels.colours is not None for pixels in maps)
    by_colour = needs_colours or (has_colours and paletted)
    counts: Counter = Counter()
    for pixels in maps:
        counts.update(_as_colours(pixels) if by_colour else pixels.values)
    if by_colour and not has_colours:
        raise LayoutError(
            f'{where}: label maps have colours, and no file says of which class: {_shares(counts)}. Write a file with '
            'a line `NAME:R,G,B` for each and give it as --classes FILE; the name `ignore` leaves its pixels out'
        )
    if entries is None:
        names = ' '.join(f'NAME_OF_{value}' for value in sorted(counts)[:3])
        raise LayoutError(
            f'{where}: label maps have these values, and nobody says what they are: {_shares(counts)}. Give '
            f'--classes {names} ..., in the order of the values; the name `ignore` leaves its pixels out, and 255 '
            'beside class numbers is left out as it is'
        )
    table, names = _colour_table(entries) if by_colour else _value_table(entries, counts)
    if unknown := Counter({key: count for key, count in counts.items() if key not in table}):
        kind = 'colours' if by_colour else 'values'
        raise LayoutError(
            f'{where}: label maps have {kind} of no class: {_shares(unknown, counts.total())}; classes are '
            f'{", ".join(names)} ({len(names)}), coded {_shown(table)}. Name all of them, `ignore` '
            'for what is to be left out; blurred borders come from resized or JPEG label maps'
        )
    return LabelCoding(table, by_colour), names


def _as_colours(pixels: LabelPixels) -> Counter[Colour]:
    return pixels.colours or Counter({(value, value, value): n for value, n in pixels.values.items()})


def _shares(counts: Counter, total: int | None = None) -> str:
    shown = sorted(counts.most_common(_SHOWN))
    shown = [f'{key} ({count / (total or counts.total()):.1%})' for key, count in shown]
    return ', '.join(shown) + (f', ... ({len(counts)} in all)' if len(counts) > _SHOWN else '')


def _shown(table: dict) -> str:
    shown = [f'{key}' for key in table if key != IGNORED]
    return ', '.join(shown[:_SHOWN]) + (', ...' if len(shown) > _SHOWN else '')


def _colour_table(entries: Sequence[ClassEntry]) -> tuple[dict[Colour, int], tuple[str, ...]]:
    kept = [entry for entry in entries if not entry.is_left_out]
    table = {entry.colour: IGNORED for entry in entries if entry.is_left_out and entry.colour}
    table |= {entry.colour: i for i, entry in enumerate(kept) if entry.colour}
    return table, tuple(entry.name for entry in kept)


def _value_table(entries: Sequence[ClassEntry], counts: Counter[int]) -> tuple[dict[int, int], tuple[str, ...]]:
    """By the values that the file of classes gives; else by order: 0, 1, ..., or the values that occur."""
    numbered = max((value for value in counts if value != IGNORED), default=0) < len(entries)
    binary = len(entries) == 2 and set(counts) == {0, IGNORED}
    if all(entry.value is not None for entry in entries):
        values = [entry.value for entry in entries]
    elif len(entries) == len(counts) and (binary or not numbered):
        values = sorted(counts)
    else:
        values = list(range(len(entries)))
    kept = [entry for entry in entries if not entry.is_left_out]
    number = {entry: i for i, entry in enumerate(kept)}
    table = {value: number.get(entry, IGNORED) for value, entry in zip(values, entries, strict=True)}
    table.setdefault(IGNORED, IGNORED)
    return table, tuple(entry.name for entry in kept)
