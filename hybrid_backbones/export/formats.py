"""Two exported programs, preprocessing and the rest, as files of one format."""

import copy
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.export import ExportedProgram

from .._extras import require
from .programs import ExportError, to_onnx

# Between the two programs.
BETWEEN = ('network_input', 'size', 'original')
# Weights with fewer numbers stay in float32 with `fp16`: they are biases and scales, and take no room.
_LARGE = 1024


@dataclass(frozen=True)
class Programs:
    """A model to be written.

    Attributes:
        preprocessing: From the image to `BETWEEN`.
        rest: From there to the results.
        outputs: Names of the results.
        metadata: Texts to keep in the file.
    """

    preprocessing: ExportedProgram
    rest: ExportedProgram
    outputs: tuple[str, ...]
    metadata: Mapping[str, str]


def write_onnx(model: Programs, path: Path, opset: int | None = None, fp16: bool = False) -> list[Path]:
    """Write `path` for onnxruntime, from image to results.

    Args:
        opset: Version of ONNX's operators; None for the exporter's choice.
        fp16: Keep weights in float16, in half the space; they are converted to float32 when the file is loaded.

    Returns:
        The files written.

    Raises:
        ExportError: As `programs.to_onnx`.
    """
    require('export', 'onnx', 'onnxscript')
    import onnx
    from onnx import compose

    parts = path.with_name('preprocessing.onnx'), path.with_name('rest.onnx')
    to_onnx(model.preprocessing, parts[0], ['image'], BETWEEN, opset)
    to_onnx(model.rest, parts[1], BETWEEN, model.outputs, opset)
    first, second = (onnx.load(part) for part in parts)
    merged = compose.merge_models(first, second, io_map=[(n, n) for n in BETWEEN], prefix1='image/', prefix2='model/')
    _rename(merged.graph, {'image/image': 'image'} | {f'model/{name}': name for name in model.outputs})
    # Both name unknown lengths u0, u1 and so on: engines would take those of one for those of the other.
    del merged.graph.value_info[:]
    # Merging repeats the domain that both have, which some readers refuse.
    opsets = {opset.domain: opset.version for opset in merged.opset_import}
    del merged.opset_import[:]
    merged.opset_import.extend(onnx.helper.make_opsetid(*pair) for pair in opsets.items())
    if fp16:
        _halve_weights(merged.graph)
    onnx.helper.set_model_props(merged, dict(model.metadata))
    onnx.save(merged, path)
    for part in parts:
        part.unlink()
    return [path]


def _rename(graph, names: Mapping[str, str]) -> None:
    """Give inputs and outputs of an ONNX graph other names."""
    for value in [*graph.input, *graph.output]:
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]


def _halve_weights(graph) -> None:
    """Keep large float32 weights of an ONNX graph as float16, each with a cast to float32."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in graph.initializer:
        if weight.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(weight)
        if values.size < _LARGE:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f'{name}/float16'))
        casts.append(helper.make_node('Cast', [weight.name], [name], f'{name}/cast', to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def write_openvino(model: Programs, path: Path, opset: int | None = None, fp16: bool = False) -> list[Path]:
    """Write `path`, an `.xml`, and the `.bin` beside it for OpenVINO; as :func:`write_onnx`, by which it goes."""
    require('export', 'openvino')
    import openvino

    (source,) = write_onnx(model, path.with_suffix('.onnx'), opset)
    converted = openvino.convert_model(str(source))
    for name, text in model.metadata.items():
        converted.set_rt_info(text, name)
    openvino.save_model(converted, str(path), compress_to_fp16=fp16)
    source.unlink()
    return [path, path.with_suffix('.bin')]


def write_torch(model: Programs, path: Path) -> list[Path]:
    """Write `path` for `torch.export.load`: the program after preprocessing, which the runtime does by torch."""
    buffer = io.BytesIO()  # torch's own writer aborts the process where a disk is full
    torch.export.save(model.rest, buffer, extra_files=dict(model.metadata))
    path.write_bytes(buffer.getbuffer())
    return [path]


def write_aotinductor(model: Programs, path: Path) -> list[Path]:
    """Write `path`, compiled for this machine's processor, for `torch._inductor.aoti_load_package`."""
    try:
        torch._inductor.aoti_compile_and_package(copy.deepcopy(model.rest), package_path=str(path))
    except Exception as error:
        raise ExportError(f'AOTInductor of torch {torch.__version__}: {type(error).__name__}: {error}') from error
    return [path]


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        write: What writes it.
        suffix: Of the file that is opened.
        engine: Of the runtime, by name.
        by_onnx: Whether it is made by way of ONNX: `write` then takes `opset` and `fp16`.
    """

    write: Callable[..., list[Path]]
    suffix: str
    engine: str
    by_onnx: bool


FORMATS = {
    'onnx': Format(write_onnx, '.onnx', 'onnxruntime', by_onnx=True),
    'openvino': Format(write_openvino, '.xml', 'openvino', by_onnx=True),
    'torch': Format(write_torch, '.pt2', 'torch', by_onnx=False),
    'aotinductor': Format(write_aotinductor, '.pt2', 'aotinductor', by_onnx=False),
}
