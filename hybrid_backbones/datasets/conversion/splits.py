"""Training and validation images where a folder does not say which are which."""

import random
from collections import Counter
from collections.abc import Sequence

from .duplicates import group_duplicates
from .errors import LayoutError, shortened
from .records import RawData, RawImage


def assign_splits(data: RawData, val_share: float, seed: int) -> None:
    """Give every image a split, and drop images that are in none where others are.

    The folder's own splits stay; without one for validation, a part of the training images is taken. Near-duplicates
    stay together, and every class is divided in the same proportion as far as whole groups of images can be.

    Raises:
        LayoutError: There is too little to divide.
    """
    named = {image.split for image in data.images} - {None}
    if 'train' not in named:
        for image in data.images:
            image.split = 'train'
    elif without := [image for image in data.images if image.split is None]:
        data.notes.append(f'left out, in no split: {shortened([image.path.name for image in without])}')
        data.images = [image for image in data.images if image.split]
    if 'val' not in {image.split for image in data.images}:
        pool = [image for image in data.images if image.split == 'train']
        _divide(pool, val_share, seed)
        parts = Counter(image.split for image in pool)
        data.notes.append(
            f'split at random (seed {seed}), by class, near-duplicates together: {parts["train"]} training images, '
            f'{parts["val"]} validation images'
        )


def _divide(images: list[RawImage], share: float, seed: int) -> None:
    groups = [[images[i] for i in group] for group in group_duplicates([image.path for image in images])]
    if len(groups) < 2:
        raise LayoutError(
            f'{len(images)} images of one look cannot be divided into training and validation; put images into folders '
            'train and val'
        )
    random.Random(seed).shuffle(groups)
    chosen = _stratified(groups, share)
    for number, group in enumerate(groups):
        for image in group:
            image.split = 'val' if number in chosen else 'train'


def _stratified(groups: Sequence[list[RawImage]], share: float) -> set[int]:
    """Numbers of the groups for validation: iterative stratification (Sechidis et al. 2011), rarest class first."""
    has = [Counter(c for image in group for c in image.amounts) for group in groups]
    images_of = Counter()
    for counts in has:
        images_of.update(counts)
    wanted = {c: share * n for c, n in images_of.items()}
    total = share * sum(map(len, groups))
    chosen: set[int] = set()
    open_groups = dict.fromkeys(range(len(groups)))

    def place(number: int, in_val: bool) -> None:
        del open_groups[number]
        if in_val:
            chosen.add(number)
            for c, n in has[number].items():
                wanted[c] -= n

    for c in sorted(images_of, key=lambda c: (images_of[c], c)):
        for number in [number for number in open_groups if has[number][c]]:
            place(number, wanted[c] >= has[number][c] / 2)
    for number in list(open_groups):  # images without any object
        place(number, sum(len(groups[i]) for i in chosen) + len(groups[number]) / 2 <= total)
    if not chosen:
        chosen.add(min(range(len(groups)), key=lambda i: len(groups[i])))
    if len(chosen) == len(groups):
        chosen.remove(max(chosen, key=lambda i: len(groups[i])))
    return chosen
