"""Scenes of coloured shapes, drawn from a seed: the content of the embedded dataset (`shapes.py` writes it to disk).

Masks and label maps are the same on every platform and with every NumPy: the random numbers come from the frozen
`RandomState` stream and shapes are filled with integer arithmetic on a grid of 1/16 pixel. Colours are integers too.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

CLASSES = ('circle', 'square', 'triangle', 'star', 'ring', 'cross')
# The label map has one class more than there are kinds of objects, as ADE20K's has walls and sky.
BACKGROUND = 'background'
# The outline determines the class; nine shapes out of ten also have the hue (degrees) of their class.
HUES = dict(circle=0, square=220, triangle=120, star=55, ring=285, cross=175)
STRAY_COLOUR = 0.1

_GRID = 16  # steps per pixel
_MIN_VISIBLE_PIXELS = 50
_MIN_VISIBLE_SHARE = 0.45
_CROWD_EVERY, _EMPTY_EVERY = 16, 32

Random = np.random.RandomState


@dataclass
class Instance:
    """One annotated object: class index, the pixels of it that can be seen (H, W) bool, and whether it is a crowd."""

    label: int
    mask: np.ndarray
    crowd: bool = False


@dataclass
class Scene:
    """An image (H, W, 3) uint8 BGR, its objects, and its label map (H, W) uint8: 0 other, then CLASSES, background."""

    image: np.ndarray
    instances: list[Instance]
    labels: np.ndarray


def draw_scene(size: int, *stream: int) -> Scene:
    """Draw the scene of a random stream, such as `(seed, split, index)`; the last number also selects its content.

    One scene in 32 has no object, and one in 16 has a crowd: small shapes of one class, annotated together.

    Args:
        size: Side of the square image in pixels, at least 64.
        *stream: Integers that seed the scene, non-negative.
    """
    random = Random(stream)
    index = stream[-1]
    canvas = _Canvas(size, random)
    if index % _EMPTY_EVERY != 9:
        if index % _CROWD_EVERY == 5:
            canvas.add_crowd()
        canvas.add_shapes()
    return canvas.finish()


class _Canvas:
    """A scene being drawn, with the owner of each pixel (-1: background, -2: clutter, else index of an object)."""

    def __init__(self, size: int, random: Random) -> None:
        self.size = size
        self.random = random
        self.image = _background(size, random)
        self.owner = np.full((size, size), -1, np.int16)
        self.objects: list[tuple[int, bool, int]] = []  # class, crowd, pixels before others covered it
        for _ in range(random.randint(0, 3)):
            self._add_stroke()

    def add_shapes(self) -> None:
        """Two to six shapes, larger ones below smaller ones; in two scenes of five one fills much of the image."""
        random, scale = self.random, self.size / 160
        radii = [math.exp(random.uniform(math.log(9), math.log(34))) * scale for _ in range(random.randint(2, 7))]
        if random.random_sample() < 0.4:
            radii[0] = random.uniform(58, 76) * scale
        for radius in sorted(radii, reverse=True):
            label = random.randint(len(CLASSES))
            self._place(radius, lambda radius, label=label: self._shape(label, radius), label)

    def add_crowd(self) -> None:
        """A dozen touching small shapes of one class."""
        label = self.random.randint(len(CLASSES))
        self._place(24 * self.size / 160, lambda radius: self._cluster(label, radius), label, crowd=True)

    def finish(self) -> Scene:
        labels = np.full(self.owner.shape, len(CLASSES) + 1, np.uint8)
        labels[self.owner == -2] = 0
        instances = []
        for number, (label, crowd, _) in enumerate(self.objects):
            mask = self.owner == number
            labels[mask] = label + 1
            instances.append(Instance(label, mask, crowd))
        noise = self.random.randint(-9, 10, self.image.shape)
        return Scene(np.clip(self.image + noise, 0, 255).astype(np.uint8), instances, labels)

    def _place(self, radius: float, draw: Callable[[float], np.ndarray], label: int, crowd: bool = False) -> None:
        """Try some positions; keep the first at which this object and those that it covers stay visible enough."""
        for _ in range(10):
            mask = draw(radius)
            pixels = int(mask.sum())
            if pixels >= _MIN_VISIBLE_PIXELS and self._others_stay_visible(mask):
                self.owner[mask] = len(self.objects)
                self.objects.append((label, crowd, pixels))
                self._paint(mask, label)
                return

    def _others_stay_visible(self, mask: np.ndarray) -> bool:
        left = np.bincount(self.owner[~mask & (self.owner >= 0)], minlength=len(self.objects))
        return all(
            seen >= max(_MIN_VISIBLE_SHARE * whole, _MIN_VISIBLE_PIXELS)
            for seen, (_, _, whole) in zip(left, self.objects, strict=True)
        )

    def _centre(self, radius: float) -> tuple[float, float]:
        """A position at which the border cuts off at most half the radius, or a third if the shape is large."""
        margin = min(radius * (0.5 if radius < self.size / 4 else 0.67), self.size / 2)
        x, y = self.random.uniform(margin, self.size - margin, 2)
        return x, y

    def _shape(self, label: int, radius: float) -> np.ndarray:
        return _fill(CLASSES[label], self._centre(radius), radius, self.random.uniform(-0.4, 0.4), self.size)

    def _cluster(self, label: int, radius: float) -> np.ndarray:
        x, y = self._centre(radius)
        mask = np.zeros((self.size, self.size), bool)
        for _ in range(12):
            dx, dy = self.random.uniform(-radius, radius, 2)
            angle = self.random.uniform(-0.4, 0.4)
            mask |= _fill(CLASSES[label], (x + dx, y + dy), radius / 4, angle, self.size)
        return mask

    def _add_stroke(self) -> None:
        """A thin grey bar that belongs to no class: 0 (other) in the label map, nothing among the objects."""
        length = self.size * 0.2
        mask = _fill('bar', self._centre(length), length, self.random.uniform(0, math.pi), self.size)
        self.owner[mask] = -2
        self.image[mask] = self.random.randint(20, 236)

    def _paint(self, mask: np.ndarray, label: int) -> None:
        """Fill with a colour that grows brighter to one side; a darker rim separates equal colours."""
        hue = HUES[CLASSES[label]] + self.random.randint(-12, 13)
        if self.random.random_sample() < STRAY_COLOUR:
            hue = self.random.randint(360)
        colour = _vivid(hue)
        ramp = np.arange(self.size)[:, None] * self.random.randint(-40, 41) // self.size
        shade = 100 + np.broadcast_to(ramp, mask.shape)[mask] + self.random.randint(-15, 16)
        shade = np.where(_rim(mask)[mask], shade * 6 // 10, shade)
        self.image[mask] = np.clip(colour * shade[:, None] // 100, 0, 255)


def _outline(kind: str) -> np.ndarray:
    """Corners (V, 2) of a shape of radius 1 around the origin."""
    if kind == 'square':
        return np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.85
    if kind == 'bar':
        return np.array([(-1, -0.06), (1, -0.06), (1, 0.06), (-1, 0.06)])
    if kind == 'cross':
        a, b = 0.33, 1.05
        corners = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)]
        return np.array(corners + [(-x, -y) for x, y in corners])
    radii = dict(triangle=[1.2] * 3, star=[1.2, 0.5] * 5)[kind]
    turns = [2 * math.pi * i / len(radii) for i in range(len(radii))]
    return np.array([(r * math.sin(turn), -r * math.cos(turn)) for r, turn in zip(radii, turns, strict=True)])


def _fill(kind: str, centre: tuple[float, float], radius: float, angle: float, size: int) -> np.ndarray:
    """Pixels (size, size) bool whose centre lies in the shape."""
    position = np.arange(size, dtype=np.int64) * _GRID + _GRID // 2
    x, y = position[None, :], position[:, None]
    cx, cy, r = (round(value * _GRID) for value in (*centre, radius))
    if kind in ('circle', 'ring'):
        distance = (x - cx) ** 2 + (y - cy) ** 2
        hole = (r * 11 // 20) ** 2 if kind == 'ring' else -1
        return (distance <= r * r) & (distance > hole)
    cos, sin = math.cos(angle), math.sin(angle)
    corners = _outline(kind) @ np.array([[cos, sin], [-sin, cos]]) * r + (cx, cy)
    corners = np.rint(corners).astype(np.int64)
    inside = np.zeros((size, size), bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        # Even-odd rule: toggle the pixels of the edge's rows that lie to its left.
        left = (x - x0) * (y1 - y0) < (y - y0) * (x1 - x0) if y1 > y0 else (x - x0) * (y1 - y0) > (y - y0) * (x1 - x0)
        inside ^= ((y0 > y) != (y1 > y)) & left
    return inside


def _rim(mask: np.ndarray) -> np.ndarray:
    """Pixels of the mask with a direct neighbour outside it (beyond the image counts as inside)."""
    padded = np.pad(mask, 1, mode='edge')
    return mask & ~(padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:])


def _vivid(hue: int) -> np.ndarray:
    """BGR colour (3,) of a hue in degrees, strongly but not fully saturated."""
    ramp = [abs((hue % 360 + offset) % 360 - 180) for offset in (120, 240, 0)]  # blue, green, red
    return np.array([50 + 170 * min(max(distance - 60, 0), 60) // 60 for distance in ramp])


def _background(size: int, random: Random) -> np.ndarray:
    """A dull texture (size, size, 3) int: clouds, stripes, checks or a slope, in a slightly tinted grey."""
    x, y = np.arange(size)[None, :], np.arange(size)[:, None]
    period = random.randint(8, 25)
    kind = random.randint(4)
    if kind == 0:
        pattern = _clouds(size, random)
    elif kind == 1:
        a, b = random.randint(-2, 3), random.randint(1, 3)
        pattern = (a * x + b * y) // period % 2 * 255
    elif kind == 2:
        pattern = (x // period + y // period) % 2 * 255
    else:
        pattern = (x * random.randint(0, 256) + y * random.randint(0, 256)) // (2 * size)
    base, contrast = random.randint(60, 160), random.randint(20, 60)
    tint = random.randint(-12, 13, 3)
    return (base + contrast * pattern // 255)[..., None] + tint


def _clouds(size: int, random: Random) -> np.ndarray:
    """Smooth noise (size, size) in 0..255: random values on a coarse grid, interpolated in integers."""
    cells = 6
    grid = random.randint(0, 256, (cells + 1, cells + 1))
    position = np.arange(size) * cells * 16 // size
    cell, step = position // 16, position % 16
    weights = np.zeros((size, cells + 1), np.int64)
    weights[np.arange(size), cell] = 16 - step
    weights[np.arange(size), cell + 1] += step
    return weights @ grid @ weights.T // 256
