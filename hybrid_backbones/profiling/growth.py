"""How costs grow with the size of an image."""

import math
from collections.abc import Sequence

import numpy as np


def growth_exponent(sizes: Sequence[float], values: Sequence[float | None]) -> float | None:
    """`p` of `value ~ size**p`, by least squares on logarithms; None if values are known for fewer than two sizes."""
    points = [(math.log(s), math.log(v)) for s, v in zip(sizes, values, strict=True) if v is not None and v > 0]
    if len({size for size, _ in points}) < 2:
        return None
    return float(np.polyfit(*zip(*points, strict=True), 1)[0])
