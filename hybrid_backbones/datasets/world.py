"""The drawn dataset `shapes-world`: images without end to pretrain classifiers on, drawn as they are read, no files.

A class is a combination of an outline, a texture and an arrangement of objects; everything else varies from image to
image: position, size, rotation, proportions, background, clutter, occlusion, lighting, blur and noise. Most objects of
a texture have a hue of its own, as materials do, so that there is something easy to learn first: where colours said
nothing about the class, a DeiT-T stayed at chance for 16,000 images. An image is a function of its seed, split and
index alone, up to rounding that may differ between processors.

That networks learn useful features from images of formulas, whose parameters are the classes, was shown with fractals
(FractalDB, Kataoka et al., arXiv 2101.08515; several to an image and drawn during training: Anderson and Farrell, arXiv
2110.03091), and with procedural noise, among it leaves of random shape that hide each other (Baradad et al., arXiv
2106.05963). Taken from them: many classes, diversity before realism, clutter by leaves, and drawing instead of storing.
The images and the classes are our own.
"""

import colorsys
import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

OUTLINES = ('disc', 'triangle', 'square', 'star', 'cross', 'flower', 'crescent', 'arrow')
TEXTURES = ('plain', 'stripes', 'checks', 'grid', 'dots', 'waves', 'clouds', 'grain')
ARRANGEMENTS = ('single', 'row', 'ring', 'nested')
# Names of the classes in the order of their labels.
CLASSES = tuple(
    f'{outline}, {texture}, {arrangement}'
    for outline in OUTLINES
    for texture in TEXTURES
    for arrangement in ARRANGEMENTS
)
SPLITS = ('train', 'val')
MIN_SIZE = 32
# Share of images whose texture has another hue than most of its kind.
STRAY_COLOUR = 0.15

_SHIFT = 4  # bits of a pixel's fraction in OpenCV's polygons
Random = np.random.RandomState


@dataclass
class WorldImage:
    """An image (H, W, 3) uint8 RGB, its class, and its label map (H, W) uint16: 0 elsewhere, objects the class + 1."""

    image: np.ndarray
    label: int
    labels: np.ndarray


class ShapesWorld(Dataset):
    """Images of `shapes-world` for a classifier: `dict(inputs=(3, size, size) uint8 RGB, labels=int)`.

    Any run of `len(CLASSES)` images in a row has every class once.

    Args:
        num_images: Length; further images are drawn by a longer dataset, the first ones stay the same.
        size: Side of the square images in pixels, at least 32.
        seed: Another seed, other images.
        split: `'train'` or `'val'`, which share no image.

    Raises:
        ValueError: An argument out of its range.
    """

    metainfo = dict(classes=CLASSES)

    def __init__(self, num_images: int, size: int = 112, seed: int = 0, split: str = 'train') -> None:
        if num_images < 1 or size < MIN_SIZE or seed < 0 or split not in SPLITS:
            raise ValueError(
                f'shapes-world: need num_images >= 1, size >= {MIN_SIZE}, seed >= 0 and split in {SPLITS}, '
                f'got {num_images}, {size}, {seed} and {split!r}'
            )
        self.num_images = num_images
        self.size = size
        self.seed = seed
        self.split = split

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, index: int) -> dict[str, Any]:
        drawn = draw_world(self.size, self.seed, self.split, index)
        return dict(inputs=torch.from_numpy(drawn.image.transpose(2, 0, 1).copy()), labels=drawn.label)


def draw_world(size: int, seed: int, split: str, index: int) -> WorldImage:
    """Draw image `index` of a split; its class is `index % len(CLASSES)`."""
    random = Random((seed, SPLITS.index(split), index))
    label = index % len(CLASSES)
    outline, rest = divmod(label, len(TEXTURES) * len(ARRANGEMENTS))
    texture, arrangement = divmod(rest, len(ARRANGEMENTS))
    image = _background(size, random)
    mask = _add_objects(image, OUTLINES[outline], TEXTURES[texture], ARRANGEMENTS[arrangement], random)
    _occlude(image, mask, random)
    labels = np.where(mask > 127, label + 1, 0).astype(np.uint16)
    return WorldImage(_photograph(image, random), label, labels)


def _add_objects(image: np.ndarray, outline: str, texture: str, arrangement: str, random: Random) -> np.ndarray:
    """Paint the objects of a class into `image`; their mask (H, W) uint8, with soft edges."""
    size = len(image)
    turn, squeeze = random.uniform(0, 2 * math.pi), random.uniform(0.7, 1)
    pattern = _texture(texture, size, random)
    first, second = _colours(texture, random)
    whole = np.zeros((size, size), np.uint8)
    for x, y, radius, is_inner in _places(arrangement, random):
        mask = _fill(outline, (x * size, y * size), radius * size, turn, squeeze, size)
        below, above = (second, first) if is_inner else (first, second)
        _blend(image, below + (above - below) * pattern[..., None], mask)
        np.maximum(whole, mask, out=whole)
        if arrangement not in ('single', 'nested'):
            turn += random.uniform(-0.3, 0.3)
    return whole


def _places(arrangement: str, random: Random) -> list[tuple[float, float, float, bool]]:
    """Centre and radius of each object in sides of the image, and whether it lies within the one before."""
    x, y = random.uniform(0.4, 0.6, 2)
    direction = random.uniform(0, 2 * math.pi)
    if arrangement == 'single':
        return [(x, y, random.uniform(0.26, 0.42), False)]
    if arrangement == 'nested':
        radius = random.uniform(0.34, 0.46)
        return [(x, y, radius * share, share == 0.55) for share in (1, 0.55)]
    if arrangement == 'row':
        radius, count = random.uniform(0.13, 0.18), random.randint(3, 5)
        steps = [2.2 * radius * (i - (count - 1) / 2) for i in range(count)]
        return [(x + s * math.cos(direction), y + s * math.sin(direction), radius, False) for s in steps]
    radius, count = random.uniform(0.12, 0.15), random.randint(5, 8)
    turns = [direction + 2 * math.pi * i / count for i in range(count)]
    away = max(0.3, 2.2 * radius * count / (2 * math.pi))
    return [(x + away * math.cos(turn), y + away * math.sin(turn), radius, False) for turn in turns]


def _colours(texture: str, random: Random) -> tuple[np.ndarray, np.ndarray]:
    """Two colours (3,) float32, a dark and a light one in random order, around the hue that most of a texture have."""
    hue = TEXTURES.index(texture) / len(TEXTURES)
    if random.uniform() < STRAY_COLOUR:
        hue = random.uniform()
    dark = _colour(hue + random.uniform(-0.04, 0.04), random.uniform(0.5, 1), random.uniform(0.2, 0.5))
    light = _colour(hue + random.uniform(-0.04, 0.04), random.uniform(0.3, 0.9), random.uniform(0.75, 1))
    return (dark, light) if random.randint(2) else (light, dark)


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """RGB (3,) float32 from 0 to 255."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32) * 255


def _dull_colour(random: Random) -> np.ndarray:
    return _colour(random.uniform(), random.uniform(0, 0.4), random.uniform(0.15, 1))


@cache
def _corners(outline: str) -> np.ndarray:
    """Corners (V, 2) of an outline of radius 1 around the origin."""
    if outline == 'cross':
        a, b = 0.33, 1.0
        corners = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)]
        return np.array(corners + [(-x, -y) for x, y in corners])
    if outline == 'arrow':
        return np.array([(1.1, 0), (0.1, -0.8), (0.1, -0.3), (-1, -0.3), (-1, 0.3), (0.1, 0.3), (0.1, 0.8)])
    if outline == 'crescent':
        turns = np.linspace(0.9, 2 * math.pi - 0.9, 32)
        outer = np.stack([np.cos(turns), np.sin(turns)], 1)
        inner = np.stack([0.75 * np.cos(turns) + 0.38, 0.75 * np.sin(turns)], 1)
        return np.concatenate([outer, inner[::-1]])
    few = dict(triangle=[1.2] * 3, square=[1.2] * 4, star=[1.2, 0.5] * 5)
    turns = np.arange(len(few.get(outline, range(48)))) * 2 * math.pi / len(few.get(outline, range(48)))
    radii = np.array(few.get(outline, np.ones(48) if outline == 'disc' else 0.85 + 0.3 * np.cos(6 * turns)))
    return np.stack([radii * np.cos(turns), radii * np.sin(turns)], 1)


def _fill(
    outline: str, centre: tuple[float, float], radius: float, turn: float, squeeze: float, size: int
) -> np.ndarray:
    """Mask (size, size) uint8 of an outline, squeezed along one of its axes and turned."""
    cos, sin = math.cos(turn), math.sin(turn)
    corners = _corners(outline) * (radius, radius * squeeze) @ np.array([[cos, sin], [-sin, cos]]) + centre
    return _fill_polygon(corners, size)


def _fill_polygon(corners: np.ndarray, size: int) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.rint(corners * 2**_SHIFT).astype(np.int32)], 255, cv2.LINE_AA, _SHIFT)
    return mask


def _blend(image: np.ndarray, paint: np.ndarray, mask: np.ndarray) -> None:
    """Put `paint`, (3,) or (H, W, 3), over `image` in place, where the mask is."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    part, opacity = image[box], mask[box][..., None].astype(np.float32) / 255
    part += (paint[box] - part if paint.ndim == 3 else paint - part) * opacity


@cache
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x (1, size) and y (size, 1) of the pixels, float32."""
    steps = np.arange(size, dtype=np.float32)
    return steps[None], steps[:, None]


def _texture(kind: str, size: int, random: Random) -> np.ndarray:
    """Pattern (size, size) float32 from 0 to 1."""
    period, turn = size / random.uniform(7, 13), random.uniform(0, math.pi)
    if kind == 'plain':
        return np.zeros((size, size), np.float32)
    if kind == 'clouds':
        return _noise(size, 9, random)
    if kind == 'grain':
        return (_noise(size, size // 2, random) > 0.5).astype(np.float32)
    x, y = _grid(size)
    cos, sin = math.cos(turn) / period, math.sin(turn) / period
    u, v = x * cos + y * sin + random.uniform(), y * cos - x * sin + random.uniform()
    if kind == 'waves':
        u += 0.25 * np.sin(v * (0.9 * math.pi))
    s, t = u - np.floor(u), v - np.floor(v)
    if kind in ('stripes', 'waves'):
        inside = s < 0.5
    elif kind == 'checks':
        inside = (s < 0.5) ^ (t < 0.5)
    elif kind == 'grid':
        inside = (s < 0.28) | (t < 0.28)
    else:
        inside = (s - 0.5) ** 2 + (t - 0.5) ** 2 < 0.11
    return inside.astype(np.float32)


def _noise(size: int, cells: int, random: Random) -> np.ndarray:
    """Smooth noise (size, size) float32 from 0 to 1: random values of a coarse grid, interpolated."""
    values = np.frombuffer(random.bytes(cells * cells), np.uint8).reshape(cells, cells)
    return cv2.resize(values.astype(np.float32) / 255, (size, size), interpolation=cv2.INTER_LINEAR)


def _background(size: int, random: Random) -> np.ndarray:
    """A texture of two similar colours under leaves of random shape, (size, size, 3) float32."""
    first = _dull_colour(random)
    second = first + random.uniform(-40, 40, 3).astype(np.float32)
    pattern = _texture(TEXTURES[random.randint(len(TEXTURES))], size, random)
    image = first + (second - first) * pattern[..., None]
    for _ in range(random.randint(0, 7)):
        _blend(image, _dull_colour(random), _leaf(random.uniform(0.05, 0.25), size, random))
    return image


def _leaf(radius: float, size: int, random: Random) -> np.ndarray:
    """Mask of a polygon of random corners that no class has; `radius` in sides of the image."""
    turns = np.sort(random.uniform(0, 2 * math.pi, random.randint(4, 9)))
    corners = np.stack([np.cos(turns), np.sin(turns)], 1) * radius * random.uniform(0.5, 1, (len(turns), 1))
    return _fill_polygon((corners + random.uniform(0, 1, 2)) * size, size)


def _occlude(image: np.ndarray, mask: np.ndarray, random: Random) -> None:
    """Hide parts of the objects under up to two small leaves."""
    for _ in range(random.randint(0, 3)):
        leaf = _leaf(random.uniform(0.05, 0.15), len(image), random)
        _blend(image, _dull_colour(random), leaf)
        np.minimum(mask, 255 - leaf, out=mask)


def _photograph(image: np.ndarray, random: Random) -> np.ndarray:
    """Light that changes over the image, blur, and noise: uint8."""
    size = len(image)
    corners = random.uniform(0.6, 1.25, (2, 2)).astype(np.float32)
    image *= cv2.resize(corners, (size, size), interpolation=cv2.INTER_LINEAR)[..., None]
    if random.uniform() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), random.uniform(0.5, 1.2))
    noise = np.frombuffer(random.bytes(image.size), np.int8).reshape(image.shape)
    image += noise * np.float32(random.uniform(0, 0.15))
    return np.clip(image, 0, 255).astype(np.uint8)
