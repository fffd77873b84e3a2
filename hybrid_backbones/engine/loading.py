"""Reading images with errors that name the file."""

from mmengine.registry import TRANSFORMS

_JPEG_START, _JPEG_END = b'\xff\xd8', b'\xff\xd9'


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
            return self.transform(results)
        except Exception as error:
            paths = [results[key] for key in ('img_path', 'seg_map_path') if results.get(key)]
            raise OSError(
                f'{type(self.transform).__name__} could not read {" or ".join(map(str, paths))} '
                f'({type(error).__name__}: {error}). The file is missing, damaged or not an image: fetch it again, '
                f'or take it out of the annotations'
            ) from error

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.transform!r})'
