"""Run an exported detector or segmentor with NumPy and onnxruntime or OpenVINO, without torch and OpenMMLab.

python -m hybrid_backbones.export.runtime model.onnx image.jpg -o out.png
python -m hybrid_backbones.export.runtime model.onnx folder_of_images -o folder_of_pictures
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

# Of the JSON beside a file. A file of a later version is refused.
FORMAT_VERSION = 1
IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


class DeployedModel:
    """An exported file: images in, results out.

    Args:
        path: `.onnx` for onnxruntime, `.xml` for OpenVINO, `.pt2` for torch.
        engine: None for the one that the file is made for; `openvino`, and `openvino-bf16` where the CPU has bf16,
            also take `.onnx`.
        threads: Of the engine; None for its own choice.

    Attributes:
        meta: The JSON beside the file: task, classes, input rule, hashes, versions, verification.

    Raises:
        FileNotFoundError: The file, or the JSON beside it, is missing.
        ImportError: The engine is not installed.
        ValueError: The file is not the one that the JSON describes, or is of a later version of this package.
    """

    def __init__(self, path: str | Path, engine: str | None = None, threads: int | None = None) -> None:
        self.path = Path(path)
        self.meta = read_meta(self.path)
        self._run = _ENGINES[engine or self.meta['engine']](self.path, threads)

    @property
    def classes(self) -> list[str]:
        return self.meta['classes']

    def __call__(self, image: np.ndarray, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Results of one image or of several of the same size.

        Args:
            image: (H, W, 3) or (N, H, W, 3) in RGB, uint8 or, if the file was exported so, float32 from 0 to 255.
            outputs: Names of the results to compute; None for all: count, boxes, scores, labels and masks of a
                detector, see :class:`~.detections.ExportableDetector`; labels and logits of a segmentor, see
                :class:`~.segmentors.ExportableSegmentor`.

        Returns:
            Results by name, without the axis N for one image.

        Raises:
            ValueError: The image has another shape or type, or is too small.
        """
        check_image(image, self.meta['input'])
        names = list(outputs or self.meta['outputs'])
        if unknown := set(names) - set(self.meta['outputs']):
            raise ValueError(
                f'no output {", ".join(sorted(unknown))}; {self.path} has {", ".join(self.meta["outputs"])}'
            )
        batch = image if image.ndim == 4 else image[np.newaxis]
        results = dict(zip(names, self._run(np.ascontiguousarray(batch), names), strict=True))
        if image.ndim == 4:
            return results
        return {name: values[0] for name, values in results.items()}


def read_meta(path: Path) -> dict[str, Any]:
    """The JSON beside an exported file, once the file is seen to be the one that it describes.

    Raises:
        FileNotFoundError, ValueError: As DeployedModel.
    """
    beside = meta_file(path)
    for file in (path, beside):
        if not file.is_file():
            raise FileNotFoundError(f'no file {file}; `hybrid-backbones export` writes {path.name} and {beside.name}')
    meta = json.loads(beside.read_text(encoding='utf-8'))
    if meta['format_version'] > FORMAT_VERSION:
        raise ValueError(
            f'{beside} is of format {meta["format_version"]}, this package reads {FORMAT_VERSION}: install a newer one'
        )
    for name, digest in meta['sha256'].items():
        if file_hash(path.with_name(name)) != digest:
            raise ValueError(f'{path.with_name(name)} is not the file that {beside.name} describes: export it again')
    return meta


def meta_file(path: Path) -> Path:
    """The JSON beside an exported file."""
    return path.with_name(f'{path.name}.json')


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_image(image: np.ndarray, rule: dict[str, Any]) -> None:
    """Whether an array can be given to a file with this input rule.

    Raises:
        ValueError: It cannot; why.
    """
    if image.ndim not in (3, 4) or image.shape[-1] != 3:
        raise ValueError(f'image of shape {image.shape}: expected (H, W, 3) or (N, H, W, 3), in RGB')
    if str(image.dtype) != rule['dtype']:
        raise ValueError(f'image of {image.dtype}: the file takes {rule["dtype"]}, from 0 to 255')
    if min(image.shape[-3:-1]) < rule['smallest']:
        raise ValueError(
            f'image of {image.shape[-3]} x {image.shape[-2]} pixels: the network takes {rule["smallest"]} and more'
        )


def read_image(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image file, turned as its EXIF data say; grey images get three equal channels.

    Raises:
        ValueError: It has more than 8 bits a channel.
    """
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        if image.mode.startswith(('I', 'F')):
            raise ValueError(f'{path} has more than 8 bits a channel (mode {image.mode}): convert it to 8 bits')
        return np.asarray(ImageOps.exif_transpose(image).convert('RGB'))


def paste_masks(masks: np.ndarray, boxes: np.ndarray, height: int, width: int, threshold: float = 0.5) -> np.ndarray:
    """Masks of a file that was exported with `--mask-size roi`, in the image.

    Args:
        masks: (D, S, S) probabilities.
        boxes: (D, 4) in pixels of the image.
        height, width: Of the image in pixels.
        threshold: From this probability on a pixel belongs to the object.

    Returns:
        (D, height, width) bool.
    """
    pasted = np.zeros((len(masks), height, width), bool)
    for target, mask, (left, top, right, bottom) in zip(pasted, masks, boxes, strict=True):
        rows, columns = _weights(height, top, bottom, len(mask)), _weights(width, left, right, len(mask))
        target[:] = rows @ mask @ columns.T >= threshold
    return pasted


def _weights(length: int, start: float, end: float, cells: int) -> np.ndarray:
    """(length, cells): see :func:`~.detections.paste`."""
    position = (np.arange(length, dtype=np.float32) + 0.5 - start) / max(end - start, 1e-7) * cells - 0.5
    return np.maximum(1 - np.abs(position[:, np.newaxis] - np.arange(cells, dtype=np.float32)), 0)


def _onnxruntime(path: Path, threads: int | None) -> Callable[[np.ndarray, Sequence[str]], list[np.ndarray]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(str(path), options, onnxruntime.get_available_providers())
    return lambda batch, names: session.run(list(names), {'image': batch})


def _openvino(
    path: Path, threads: int | None, precision: str = 'f32'
) -> Callable[[np.ndarray, Sequence[str]], list[np.ndarray]]:
    import openvino

    core = openvino.Core()
    if precision == 'bf16' and 'BF16' not in core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES'):
        raise ValueError('OpenVINO has no bf16 on this CPU, which lacks the instructions: take the engine openvino')
    config = {'INFERENCE_PRECISION_HINT': precision}
    if threads:
        config['INFERENCE_NUM_THREADS'] = str(threads)
    compiled = core.compile_model(str(path), 'CPU', config)
    request = compiled.create_infer_request()

    def run(batch: np.ndarray, names: Sequence[str]) -> list[np.ndarray]:
        request.infer({'image': batch})
        return [np.array(request.get_tensor(name).data) for name in names]

    return run


def _torch(path: Path, threads: int | None) -> Callable[[np.ndarray, Sequence[str]], list[np.ndarray]]:
    import torch
    import torchvision  # noqa: F401  (operators of the program)

    return _after_preprocessing(path, torch.export.load(path).module())


def _aotinductor(path: Path, threads: int | None) -> Callable[[np.ndarray, Sequence[str]], list[np.ndarray]]:
    import torch
    import torchvision  # noqa: F401

    return _after_preprocessing(path, torch._inductor.aoti_load_package(str(path)))


def _after_preprocessing(path: Path, program: Callable) -> Callable[[np.ndarray, Sequence[str]], list[np.ndarray]]:
    """A program of torch after the preprocessing that is not in it."""
    import torch

    from .preprocessing import preprocessing_of

    meta = json.loads(meta_file(path).read_text(encoding='utf-8'))
    preprocessing = preprocessing_of(meta)

    def run(batch: np.ndarray, names: Sequence[str]) -> list[np.ndarray]:
        with torch.no_grad():
            results = dict(zip(meta['outputs'], program(*preprocessing(torch.from_numpy(batch))), strict=False))
        return [results[name].numpy() for name in names]

    return run


_ENGINES: dict[str, Callable] = {
    'onnxruntime': _onnxruntime,
    'openvino': _openvino,
    'openvino-bf16': partial(_openvino, precision='bf16'),
    'torch': _torch,
    'aotinductor': _aotinductor,
}


def list_images(path: Path) -> list[Path]:
    """`path` itself, or the images in the folder `path`, sorted by name.

    Raises:
        FileNotFoundError: There are none.
    """
    if path.is_file():
        return [path]
    found = sorted(file for file in path.glob('*') if file.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise FileNotFoundError(f'no image at {path}; images end in {", ".join(IMAGE_SUFFIXES)}')
    return found


def draw_images(model: DeployedModel, images: Path, out: Path, score_thr: float) -> Iterator[Path]:
    """Draw the results of an image, or of a folder of images, to `out`, a file or a folder; yields what is written."""
    from .drawing import draw

    for path in list_images(images):
        image = read_image(path)
        picture = draw(image, model(image), model.meta, score_thr)
        target = out if images.is_file() else out / f'{path.stem}.png'
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target)
        yield target


def main() -> None:
    parser = argparse.ArgumentParser(
        prog='python -m hybrid_backbones.export.runtime', description=__doc__.split('\n')[0]
    )
    parser.add_argument('model', help='exported file: .onnx, .xml or .pt2')
    parser.add_argument('images', type=Path, help='image file, or folder of images')
    parser.add_argument('-o', '--out', type=Path, required=True, help='PNG file, or folder for a folder of images')
    parser.add_argument('--engine', choices=sorted(_ENGINES), help="default: the file's own")
    parser.add_argument('--score-thr', type=float, default=0.3, help='detections at or below it are not drawn')
    args = parser.parse_args()
    try:
        for written in draw_images(DeployedModel(args.model, args.engine), args.images, args.out, args.score_thr):
            print(written)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f'{parser.prog}: {error}')


if __name__ == '__main__':
    main()
