"""A COCO annotation file as columns: read once, without its polygons kept, fast at COCO's size."""

import gc
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

# Of the forms that `segmentation` may have; of BLANK are run lengths without any pixel, and polygons on a line.
ABSENT, EMPTY, POLYGONS, FLAT, RLE, BLANK, BROKEN = range(7)
_CHUNK = 50_000
# Mean square distance in pixels from a line, up to which points lie on it: coordinates are rounded.
_OFF_LINE = 1e-4
# Six bits a character, the last of them without the bit that says "more follows".
_RUN_LENGTHS = re.compile('[0-o]*[0-O]')


def numbers(values: Sequence[Any]) -> np.ndarray:
    """Values as float64, NaN where one is no number: absent, None, text."""
    if set(map(type, values)) <= {int, float, bool}:
        return np.fromiter(values, np.float64, len(values))
    return np.array([float(v) if type(v) in (int, float, bool) else np.nan for v in values], np.float64)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """While many small objects are made, none of which can be part of a cycle."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_text(path: Path) -> str:
    """Content of a UTF-8 file, with or without a byte-order mark."""
    return path.read_text(encoding='utf-8-sig')


class _Stream:
    """Entries of a JSON object one by one, and the items of its lists in chunks, so that they never are all in memory.

    Args:
        text: The JSON.
    """

    _blank = re.compile(r'[ \t\n\r]*')
    _decoder = json.JSONDecoder()

    def __init__(self, text: str) -> None:
        self.text, self.position = text, 0

    def peek(self) -> str:
        """The next character that is no blank."""
        self.position = self._blank.match(self.text, self.position).end()
        return self.text[self.position : self.position + 1]

    def _take(self, expected: str) -> str:
        found = self.peek()
        if not found or found not in expected:
            raise json.JSONDecodeError(f'Expecting one of {expected!r}', self.text, self.position)
        self.position += 1
        return found

    def value(self) -> Any:
        """The value at hand, whole."""
        self.peek()
        value, self.position = self._decoder.raw_decode(self.text, self.position)
        return value

    def entries(self) -> Iterator[str]:
        """Keys of the object; the caller reads the value of each before it asks for the next."""
        self._take('{')
        if self.peek() == '}':
            return
        while True:
            key = self.value()
            self._take(':')
            yield str(key)
            if self._take(',}') == '}':
                return

    def end(self) -> None:
        """Nothing may follow."""
        if self.peek():
            raise json.JSONDecodeError('Extra data', self.text, self.position)

    def chunks(self) -> Iterator[list]:
        """The list at hand, as lists of at most `_CHUNK` items."""
        self._take('[')
        items: list = []
        if self.peek() == ']':
            self._take(']')
            return
        while True:
            items.append(self.value())
            if self._take(',]') == ']':
                break
            if len(items) == _CHUNK:
                yield items
                items = []
        yield items


class CocoFile:
    """Columns of an annotation file.

    Attributes:
        path: The file.
        error: Why it cannot be read as COCO's layout, '' if it can; everything else is then empty.
        missing_keys: Those of `images`, `annotations`, `categories` that it lacks.
        images: Its images, as they stand there.
        categories: Its categories, as they stand there.
        num_annotations: N.
        ids: Annotation ids, None where absent.
        image_ids: Image id of each annotation.
        image_rows: (N,) index into `images`, -1 for an unknown image.
        category_rows: (N,) index into `categories`, -1 for an unknown category.
        boxes: (N, 4) x, y, width, height in pixels, NaN where one is no number.
        box_problems: Index of an annotation to what is wrong with its `bbox`.
        areas: (N,) NaN where absent.
        crowd: (N,) NaN where absent.
        ignored: (N,) bool, key `ignore`.
        segmentation: (N,) one of ABSENT, EMPTY, POLYGONS, FLAT, RLE, BLANK, BROKEN.
        polygon_sizes: (N, 2) fewest and most numbers of one polygon, 0 where there is none.
        odd_polygons: (N,) whether a polygon has an odd number of coordinates.
        mask_bounds: (N, 4) x0, y0, x1, y1 of all polygons or of the run lengths, NaN where there is none.
        rle_sizes: (N, 2) height and width, NaN where there is none.
        widths, heights: Of images, NaN where absent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error = ''
        self.images: list[dict] = []
        self.categories: list[dict] = []
        found: set[str] = set()
        chunks: list[_Annotations] = []
        try:
            with _no_garbage_collection():
                self._read(_Stream(read_text(path)), found, chunks)
        except (ValueError, TypeError, RecursionError) as error:
            self.error, self.images, self.categories, chunks = f'{type(error).__name__}: {error}', [], [], []
        self.missing_keys = [key for key in ('images', 'annotations', 'categories') if key not in found]
        self.widths = numbers([image.get('width') for image in self.images])
        self.heights = numbers([image.get('height') for image in self.images])
        self.image_index = {_hashable(image.get('id')): row for row, image in enumerate(self.images)}
        self.category_index = {_hashable(category.get('id')): row for row, category in enumerate(self.categories)}
        self._join(chunks or [_Annotations([])])

    def _read(self, stream: _Stream, found: set[str], chunks: list['_Annotations']) -> None:
        if stream.peek() != '{':
            raise TypeError(f'it holds a {type(stream.value()).__name__}, not an object with images and annotations')
        for key in stream.entries():
            found.add(key)
            if key not in ('images', 'annotations', 'categories'):
                stream.value()
                continue
            if stream.peek() != '[':
                raise TypeError(f'{key} is {_short(stream.value())}, not a list of records')
            for records in stream.chunks():
                if not all(type(record) is dict for record in records):
                    raise TypeError(f'{key} holds something else than records')
                if key == 'annotations':
                    chunks.append(_Annotations(records))
                else:
                    getattr(self, key).extend(records)
        stream.end()

    def _join(self, chunks: list['_Annotations']) -> None:
        def column(name: str) -> np.ndarray:
            return np.concatenate([getattr(chunk, name) for chunk in chunks])

        self.ids = [i for chunk in chunks for i in chunk.ids]
        self.image_ids = [i for chunk in chunks for i in chunk.image_ids]
        self.category_ids = [i for chunk in chunks for i in chunk.category_ids]
        n = self.num_annotations = len(self.ids)
        self.image_rows = np.fromiter((self.image_index.get(i, -1) for i in self.image_ids), np.int64, n)
        self.category_rows = np.fromiter((self.category_index.get(i, -1) for i in self.category_ids), np.int64, n)
        self.boxes, self.areas, self.crowd = column('boxes'), column('areas'), column('crowd')
        self.ignored, self.segmentation = column('ignored'), column('segmentation')
        self.polygon_sizes, self.mask_bounds = column('polygon_sizes'), column('mask_bounds')
        self.odd_polygons, self.rle_sizes = column('odd_polygons'), column('rle_sizes')
        starts = np.cumsum([0, *(len(chunk.ids) for chunk in chunks)])
        self.box_problems = {
            int(start) + i: problem
            for start, chunk in zip(starts, chunks, strict=False)
            for i, problem in chunk.box_problems.items()
        }

    def name(self, row: int) -> str:
        """How a finding names an annotation."""
        return f'annotation {self.ids[row]!r} of image {self.image_ids[row]!r}'


class _Annotations:
    """Columns of some annotations, see :class:`CocoFile`."""

    def __init__(self, records: list[dict]) -> None:
        n = len(records)
        self.ids = [record.get('id') for record in records]
        self.image_ids = [_hashable(record.get('image_id')) for record in records]
        self.category_ids = [_hashable(record.get('category_id')) for record in records]
        self.areas = numbers([record.get('area') for record in records])
        self.crowd = numbers([record.get('iscrowd') for record in records])
        self.ignored = np.fromiter((bool(record.get('ignore')) for record in records), bool, n)
        self._read_boxes([record.get('bbox') for record in records])
        self.polygon_sizes = np.zeros((n, 2), np.int32)
        self.odd_polygons = np.zeros(n, bool)
        self.mask_bounds = np.full((n, 4), np.nan)
        self.rle_sizes = np.full((n, 2), np.nan)
        self._read_segmentations([record.get('segmentation', _MISSING) for record in records])

    def _read_boxes(self, boxes: list[Any]) -> None:
        self.box_problems: dict[int, str] = {}
        for i, box in enumerate(boxes):
            if type(box) is not list or len(box) != 4:
                self.box_problems[i] = f'bbox is {_short(box)}'
                boxes[i] = [None] * 4
        self.boxes = numbers(list(chain.from_iterable(boxes))).reshape(-1, 4)
        for i in np.flatnonzero(~np.isfinite(self.boxes).all(1)).tolist():
            self.box_problems.setdefault(i, f'bbox is {_short(boxes[i])}')

    def _read_segmentations(self, values: list[Any]) -> None:
        kinds = self.segmentation = np.fromiter(map(_kind, values), np.int8, len(values))
        rows = np.flatnonzero(kinds == POLYGONS).tolist()
        try:
            self._measure_polygons(rows, [values[i] for i in rows])
        except (TypeError, ValueError):  # a coordinate that is no number: find whose
            for i in rows:
                try:
                    self._measure_polygons([i], [values[i]])
                except (TypeError, ValueError):
                    kinds[i] = BROKEN
        for i in np.flatnonzero(kinds == RLE):
            self.rle_sizes[i] = values[i]['size']
            bounds = run_length_bounds(values[i])
            if bounds is None:
                kinds[i] = BROKEN
            elif bounds[0] == bounds[2]:
                kinds[i] = BLANK
            else:
                self.mask_bounds[i] = bounds

    def _measure_polygons(self, rows: list[int], objects: list[list[list[float]]]) -> None:
        """Sizes and bounds of the polygons of some objects."""
        if not rows:
            return
        polygons = list(chain.from_iterable(objects))
        lengths = np.fromiter(map(len, polygons), np.int64, len(polygons))
        flat = np.fromiter(chain.from_iterable(polygons), np.float64, int(lengths.sum()))
        # Text that holds numbers is converted, so that types are looked at: once a polygon, for speed.
        if not np.isfinite(flat).all() or any(type(polygon[0]) is str for polygon in polygons if polygon):
            raise ValueError('a coordinate is no number')
        starts = np.cumsum(lengths) - lengths
        is_x = (np.arange(len(flat)) - np.repeat(starts, lengths)) % 2 == 0
        counts = np.fromiter(map(len, objects), np.int64, len(objects))
        first = np.cumsum(counts) - counts
        odd = np.add.reduceat(lengths % 2, first) > 0
        at = np.asarray(rows)
        self.polygon_sizes[at, 0] = np.minimum.reduceat(lengths, first)
        self.polygon_sizes[at, 1] = np.maximum.reduceat(lengths, first)
        self.odd_polygons[at] = odd
        # A sentinel, so that the last objects may be empty.
        begin = np.minimum(starts[first], max(len(flat) - 1, 0))
        if not len(flat):
            return
        inf = np.float64(np.inf)
        for axis, chosen in ((0, is_x), (1, ~is_x)):
            self.mask_bounds[at, axis] = np.minimum.reduceat(np.where(chosen, flat, inf), begin)
            self.mask_bounds[at, axis + 2] = np.maximum.reduceat(np.where(chosen, flat, -inf), begin)
        empty = np.add.reduceat(lengths, first) == 0
        surfaces = (lengths >= 6) & ~on_a_line(flat, lengths)
        blank = at[(np.add.reduceat(surfaces, first) == 0) & ~odd & (self.polygon_sizes[at, 1] >= 6)]
        self.segmentation[blank] = BLANK
        self.mask_bounds[[*at[empty], *blank]] = np.nan


_MISSING = object()


def on_a_line(flat: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """(P,) bool: polygons of no area, whose points all lie on one line.

    Args:
        flat: Coordinates x, y, x, y, ... of all polygons.
        lengths: (P,) how many of them each has.
    """
    whole = (lengths % 2 == 0) & (lengths > 0)
    points = flat[np.repeat(whole, lengths)].reshape(-1, 2)
    counts = lengths[whole] // 2
    result = np.zeros(len(lengths), bool)
    if len(points):
        first = np.cumsum(counts) - counts

        def means(values: np.ndarray) -> np.ndarray:
            return np.add.reduceat(values, first) / counts.reshape(-1, *[1] * (values.ndim - 1))

        x, y = (points - np.repeat(means(points), counts, axis=0)).T
        xx, yy, xy = means(x * x), means(y * y), means(x * y)
        # The smaller of the two variances along the principal axes is about determinant / trace.
        result[whole] = xx * yy - xy * xy <= _OFF_LINE * (xx + yy)
    return result


def run_length_bounds(segmentation: dict) -> list[float] | None:
    """x0, y0, x1, y1 of a mask of run lengths, zeros if it is blank; None if they do not fill its size."""
    (height, width), counts = map(int, segmentation['size']), segmentation['counts']
    if isinstance(counts, list):
        if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != height * width:
            return None
        encoded = coco_mask.frPyObjects(dict(size=[height, width], counts=counts), height, width)
    elif _RUN_LENGTHS.fullmatch(counts):
        encoded = dict(size=[height, width], counts=counts)
    else:
        return None
    x, y, w, h = coco_mask.toBbox(encoded).tolist()
    return [x, y, x + w, y + h] if x + w <= width and y + h <= height else None


def _kind(value: Any) -> int:
    if value is _MISSING:
        return ABSENT
    if isinstance(value, dict):
        size, counts = value.get('size'), value.get('counts')
        whole = isinstance(size, list) and len(size) == 2 and all(type(v) in (int, float) for v in size)
        return RLE if whole and isinstance(counts, (str, list)) else BROKEN
    if not value:
        return EMPTY
    if not isinstance(value, list):
        return BROKEN
    if all(type(polygon) is list for polygon in value):
        return POLYGONS
    return FLAT if all(type(number) in (int, float) for number in value) else BROKEN


def _hashable(value: Any) -> Any:
    return value if isinstance(value, (int, float, str)) or value is None else repr(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + '...'
