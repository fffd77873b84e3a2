"""Reading images with errors that name the file."""

import os
from pathlib import Path

from mmengine.registry import TRANSFORMS

# The end marker cannot occur within compressed data; some cameras write a little behind it.
_JPEG_START, _JPEG_END, _TAIL = b'\xff\xd8', b'\xff\xd9', 1 << 16


def is_cut_jpeg(path: str | Path) -> bool:
    """Whether a local JPEG ends before its end marker. Some versions of OpenCV decode it, with a grey lower part."""
    if not Path(path).is_file():
        return False
    with Path(path).open('rb') as file:
        if file.read(2) != _JPEG_START:
            return False
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
        return _JPEG_END not in file.read()


@TRANSFORMS.register_module()
class LoadFromFileOrExplain:
    """Any loading transform, here `LoadImageFromFile` or `LoadAnnotations`, whose failure names the file.

    A damaged JPEG otherwise ends a run with `'NoneType' object has no attribute 'shape'` from a data worker.

    Args:
        transform: Config of the transform that reads.
    """

    def __init__(self, transform: dict) -> None:
        self.transform = TRANSFORMS.build(transform)

    def __call__(self, results: dict) -> dict:
        try:
            if is_cut_jpeg(results.get('img_path', '')):
                raise EOFError('the JPEG is cut short')
            return self.transform(results)
        except Exception as error:
            paths = [results[key] for key in ('img_path', 'seg_map_path') if results.get(key)]
            raise OSError(
                f'{type(self.transform).__name__} could not read {" or ".join(map(str, paths))} '
                f'({type(error).__name__}: {str(error).strip()}). The file is missing, damaged or not an image: '
                f'fetch it again, or take it out of the annotations'
            ) from error

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.transform!r})'
