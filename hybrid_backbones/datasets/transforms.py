"""Reading images and annotations with errors that name what could not be read."""

import copy
import os
from pathlib import Path
from typing import Any

from mmengine.registry import TRANSFORMS

# The end marker cannot occur within compressed data; some cameras write a little behind it.
_JPEG_START, _JPEG_END, _TAIL = b'\xff\xd8', b'\xff\xd9', 1 << 16
# Of an annotation's values in a message.
_WIDTH = 100


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
    """Any loading transform, here `LoadImageFromFile` or `LoadAnnotations`, whose failure names what is wrong.

    A damaged JPEG otherwise ends a run with `'NoneType' object has no attribute 'shape'` from a data worker, and an
    object whose polygon is empty with an error that names neither file nor object.

    Args:
        transform: Config of the transform that reads.
    """

    def __init__(self, transform: dict) -> None:
        self.transform = TRANSFORMS.build(transform)

    def __call__(self, results: dict) -> dict:
        given = copy.copy(results)
        try:
            if not self._reads_annotations and is_cut_jpeg(results.get('img_path', '')):
                raise EOFError('the JPEG is cut short')
            return self.transform(results)
        except Exception as error:
            raise OSError(self._explain(given, error)) from error

    @property
    def _reads_annotations(self) -> bool:
        return hasattr(self.transform, 'with_seg')

    def _explain(self, given: dict, error: Exception) -> str:
        if not self._reads_annotations:
            return self._unreadable(given.get('img_path'), 'an image', error)
        instances = given.get('instances') or []
        if instances and self._error_on(given, []) is None:
            for place, instance in enumerate(instances, start=1):
                if (cause := self._error_on(given, [instance])) is not None:
                    return self._unreadable_object(given, f'{place} of {len(instances)}', instance, cause)
        return self._unreadable(given.get('seg_map_path') or given.get('img_path'), 'a label map', error)

    def _error_on(self, given: dict, instances: list[dict]) -> Exception | None:
        """What the transform says to the sample with these objects alone."""
        try:
            self.transform(copy.deepcopy({**given, 'instances': instances}))
        except Exception as error:  # any: it is reported
            return error
        return None

    def _unreadable(self, path: Any, what: str, error: Exception) -> str:
        return (
            f'{self._name} could not read {path} ({type(error).__name__}: {str(error).strip()}). The file is missing, '
            f'damaged or not {what}: fetch it again, or take it out of the annotations'
        )

    def _unreadable_object(self, given: dict, place: str, instance: dict, error: Exception) -> str:
        values = ', '.join(f'{key}={_shortened(value)}' for key, value in instance.items())
        return (
            f'{self._name} could not read the annotation of object {place} in {given.get("img_path")} (image id '
            f'{given.get("img_id")}): {type(error).__name__}: {str(error).strip()}. The annotation has {values}. '
            'Correct or remove it; `python tools/check_data.py CONFIG --full` lists all such objects'
        )

    @property
    def _name(self) -> str:
        return type(self.transform).__name__

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.transform!r})'


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _WIDTH else f'{text[:_WIDTH]} ...'
