"""Images from files, with errors that name them."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..datasets.transforms import is_cut_jpeg

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """An image as (H, W, 3) uint8 RGB, resized to `size` (height, width) if given.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is not an image or damaged, or `size` is not positive.
    """
    import mmcv

    if not Path(path).is_file():
        raise FileNotFoundError(f'no image {path}')
    if size is not None and min(size) < 1:
        raise ValueError(f'size {tuple(size)}: expected a height and a width of at least one pixel')
    image = None if is_cut_jpeg(path) else mmcv.imread(str(path))
    if image is None:
        raise ValueError(f'{path} is not an image that OpenCV reads, or it is damaged')
    # mmcv's own channel_order='rgb' fails without naming the file that is no image.
    image = mmcv.bgr2rgb(image)
    return image if size is None else mmcv.imresize(image, (size[1], size[0]))


def list_images(folder: str | Path) -> list[Path]:
    """Images of a folder and those below it, sorted; a file is a folder of its own.

    Raises:
        FileNotFoundError: No such folder, or none of its files is an image by name.
    """
    folder = Path(folder)
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise FileNotFoundError(f'no folder of images {folder}')
    images = sorted(path for path in folder.rglob('*') if path.suffix.lower() in EXTENSIONS and path.is_file())
    if not images:
        raise FileNotFoundError(f'no images in {folder}: expected files named *{", *".join(EXTENSIONS)}')
    return images


def map_stride(size: Sequence[int], grid: Sequence[int]) -> int:
    """Pixels of an image of `size` that a cell of its map of size `grid` covers along either side: a power of two.

    Sizes are rounded up or down on the way, so that their ratio alone is close to the stride but not equal.
    """
    return 2 ** round(math.log2(max(size) / max(grid)))
