"""Images that show the same: a perceptual hash, and groups of images whose hashes hardly differ.

The hash is dHash: whether each of 9 x 8 grey pixels is brighter than its right neighbour. Of photographs, copies at
half the size, of JPEG quality 40 or brightened differ in 0 to 4 bits, and other images in 13 or more, also frames of a
video that are seconds apart. The package ImageHash does the same with PyWavelets and SciPy behind it.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

MAX_DISTANCE = 5  # bits
_BAND = 11  # bits; of six bands, one is equal where at most five bits differ


def difference_hash(path: Path) -> int:
    """64-bit dHash of an image file."""
    with Image.open(path) as image:
        image.draft('L', (144, 128))  # JPEGs are decoded at a fraction of their size
        grey = np.asarray(image.convert('L').resize((9, 8), Image.Resampling.LANCZOS), np.int16)
    return int.from_bytes(np.packbits(grey[:, 1:] < grey[:, :-1]).tobytes(), 'big')


def group_duplicates(paths: Sequence[Path]) -> list[list[int]]:
    """Positions of `paths` in groups: near-duplicates, directly or through others, and Roboflow's augmented copies."""
    group = list(range(len(paths)))

    def root(i: int) -> int:
        while group[i] != i:
            group[i] = i = group[group[i]]
        return i

    def join(members: Sequence[int]) -> None:
        for member in members[1:]:
            group[root(member)] = root(members[0])

    by_hash, by_source = defaultdict(list), defaultdict(list)
    for i, path in enumerate(paths):
        by_hash[difference_hash(path)].append(i)
        if match := re.match(r'(.+)\.rf\.\w+$', path.stem):  # NAME_jpg.rf.HASH.jpg
            by_source[match[1]].append(i)
    for members in [*by_hash.values(), *by_source.values()]:
        join(members)
    for a, b in _near(list(by_hash)):
        join([by_hash[a][0], by_hash[b][0]])
    groups = defaultdict(list)
    for i in range(len(paths)):
        groups[root(i)].append(i)
    return sorted(groups.values())


def _near(hashes: list[int]) -> set[tuple[int, int]]:
    """Pairs that differ in `MAX_DISTANCE` bits or less."""
    pairs = set()
    for shift in range(0, 64, _BAND):
        bands = defaultdict(list)
        for value in hashes:
            bands[value >> shift & (1 << _BAND) - 1].append(value)
        for values in bands.values():
            pairs.update((a, b) for a, b in combinations(values, 2) if (a ^ b).bit_count() <= MAX_DISTANCE)
    return pairs
