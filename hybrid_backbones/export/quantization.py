"""An exported ONNX file with convolutions and linear layers in int8, by onnxruntime's own static quantization.

It needs no package that exporting does not need (NNCF, OpenVINO's, brings scikit-learn and five others), and OpenVINO
runs its files too. Weights are quantized by channel; products of two activations, as in attention, stay in float32.
Activations have the range of values that the calibration images give them.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .._extras import require
from .._files import write_whole, written_whole
from .runtime import file_hash, list_images, meta_file, read_image, read_meta

_LAYERS = ('Conv', 'Gemm', 'MatMul')


def quantize(path: Path, images: Path, out: Path) -> dict[str, Any]:
    """Write `out`, the ONNX file `path` in int8, and the JSON beside it, unless they are there. It is not verified.

    Args:
        path: An exported file.
        images: Folder of images for calibration, of the kind that the file is for; all of them are used.
        out: File to write.

    Returns:
        What the JSON holds.

    Raises:
        FileNotFoundError: No file, or no images.
        ValueError: `path` is not an ONNX file of float32.
    """
    require('export', 'onnx', 'onnxruntime')
    meta = read_meta(path)
    if path.suffix != '.onnx' or meta['precision'] != 'float32':
        raise ValueError(f'{path} is a {path.suffix} file in {meta["precision"]}: ONNX files in float32 are quantized')
    files = list_images(images)
    made_from = dict(file=meta['sha256'][path.name], images={file.name: file_hash(file) for file in files})
    if meta_file(out).is_file():
        present = read_meta(out)
        if present.get('calibration') == made_from:
            return present
    with written_whole(out) as partial:
        _quantize(path, _Images(files, meta['input']['dtype']), partial)
    meta |= dict(precision='int8', calibration=made_from, sha256={out.name: file_hash(out)})
    meta.pop('verification', None)  # of the file in float32
    write_whole(meta_file(out), json.dumps(meta, indent=2))
    return meta


class _Images:
    """Calibration images one by one, as onnxruntime asks for them."""

    def __init__(self, files: list[Path], dtype: str) -> None:
        self._batches = self._read(files, dtype)

    @staticmethod
    def _read(files: list[Path], dtype: str) -> Iterator[dict[str, np.ndarray]]:
        for file in files:
            yield dict(image=read_image(file).astype(dtype)[np.newaxis])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def _quantize(path: Path, images: _Images, out: Path) -> None:
    from onnxruntime.quantization import quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        # Transposed weights are constants only once their transposition is computed.
        folded = Path(folder) / 'folded.onnx'
        quant_pre_process(str(path), str(folded), skip_symbolic_shape=True)
        quantize_static(
            str(folded),
            str(out),
            images,
            per_channel=True,
            op_types_to_quantize=list(_LAYERS),
            extra_options=dict(MatMulConstBOnly=True),
        )
