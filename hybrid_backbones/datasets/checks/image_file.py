"""What the header and the ends of an image file say, without decoding it."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ..transforms import is_cut_jpeg

_ORIENTATION = 0x0112  # EXIF
_BITS_PER_SAMPLE = 258  # TIFF
_PNG_BIT_DEPTH = 24  # offset in the file
_TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
_TAIL = 1 << 16


@dataclass(frozen=True)
class ImageHeader:
    """Facts about an image file.

    Attributes:
        format: 'JPEG', 'PNG', ...
        mode: Pillow's name of its channels: 'RGB', 'L', 'P', ...
        bits: Bits of a channel.
        stored: Width and height as stored.
        orientation: EXIF orientation, 1 for upright.
        damage: Why it is incomplete, '' if it is not.
        pages: Images that the file holds.
    """

    format: str
    mode: str
    bits: int
    stored: tuple[int, int]
    orientation: int
    damage: str
    pages: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height as decoders turn it by its EXIF orientation."""
        return self.stored[::-1] if self.orientation in _TURNED else self.stored


def read_header(path: Path) -> ImageHeader:
    """Header of an image file.

    Raises:
        OSError: The file is empty or no image of a known format.
    """
    if not path.stat().st_size:
        raise OSError('the file is empty')
    try:
        with Image.open(path) as image:
            orientation = image.getexif().get(_ORIENTATION, 1) if image.format in ('JPEG', 'TIFF', 'WEBP', 'PNG') else 1
            return ImageHeader(
                image.format,
                image.mode,
                _bits(path, image),
                image.size,
                orientation,
                _damage(path, image.format),
                1 if image.format == 'MPO' else getattr(image, 'n_frames', 1),  # cameras add previews
            )
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        pixels = read_pixels(path)  # 16-bit colour TIFF, for one, is read by OpenCV alone
        if pixels is None:
            raise OSError(f'it is no image that can be read ({str(error).splitlines()[0]})') from error
        bits = pixels.dtype.itemsize * 8
        channels = 'RGB' if pixels.ndim == 3 else 'L'
        return ImageHeader(path.suffix[1:].upper(), channels, bits, (pixels.shape[1], pixels.shape[0]), 1, '')


def read_pixels(path: Path) -> np.ndarray | None:
    """Pixels as stored, channels of colour last and in OpenCV's order; None where OpenCV cannot read them."""
    return cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)


def _bits(path: Path, image: Image.Image) -> int:
    if image.format == 'PNG':  # Pillow shows 16-bit colour as 8-bit
        with path.open('rb') as file:
            file.seek(_PNG_BIT_DEPTH)
            return file.read(1)[0]
    if image.format == 'TIFF':
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, (8,))
        return bits[0] if isinstance(bits, tuple) else int(bits)
    return {'1': 1, 'I;16': 16, 'I': 32, 'F': 32}.get(image.mode, 8)


def _damage(path: Path, kind: str | None) -> str:
    if kind in ('JPEG', 'MPO') and is_cut_jpeg(path):
        return 'the JPEG is cut short'
    if kind == 'PNG':
        with path.open('rb') as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            return '' if b'IEND' in file.read() else 'the PNG is cut short'
    return ''
