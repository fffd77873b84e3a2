"""Any network as an exported program and as an ONNX file, which hold for every size that they accept.

`torch.export` traces a network with example inputs. Where Python asks about a size ("is the height a multiple of 32?"),
the answer is true of the example alone, and becomes a condition on later inputs: PyTorch checks it in the program's
module, but an ONNX file has no place for it and would be silently wrong. A program with conditions other than a least
size is therefore refused here.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from .._extras import require
from .._files import written_whole

# The least that PyTorch's exporter writes without converting what it wrote.
MIN_OPSET = 18
# How many images there are, and the sides of an image batch (N, C, H, W).
ANY_IMAGES = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}


class ExportError(RuntimeError):
    """A network that cannot become a file which is right for every size."""


def export_program(
    module: nn.Module, inputs: Sequence[Tensor], dynamic_shapes: Any = None, strict: bool = False
) -> ExportedProgram:
    """`torch.export` of a network in eval mode, without gradients, for inputs of any size.

    Args:
        module: Any network, in eval mode.
        inputs: Example inputs in the order of `forward`. Their sizes must differ from 0, 1 and each other, or the
            program may only hold for such.
        dynamic_shapes: As of `torch.export.export`; by default every input is a batch (N, C, H, W) of any N, H and W.
        strict: Trace Python's bytecode, which checks more, instead of running it.

    Returns:
        A program that holds for sizes within its `range_constraints`, and for batches of one.

    Raises:
        ExportError: The network is in training mode, cannot be traced, or is only right for some sizes.
    """
    if module.training:
        raise ExportError(f'{type(module).__name__} is in training mode; call eval() first')
    shapes = tuple(ANY_IMAGES for _ in inputs) if dynamic_shapes is None else dynamic_shapes
    try:
        with torch.no_grad():
            program = torch.export.export(module, tuple(inputs), dynamic_shapes=shapes, strict=strict)
    except Exception as error:
        raise ExportError(f'torch.export {torch.__version__} of {type(module).__name__}: {error}') from error
    _check_conditions(program, type(module).__name__)
    return program


def to_onnx(
    program: ExportedProgram,
    path: str | Path,
    input_names: Sequence[str],
    output_names: Sequence[str],
    opset: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write an exported program as one ONNX file; nothing is written if that fails.

    Args:
        program: Of :func:`export_program`, which makes sure that nothing is lost on the way.
        input_names, output_names: One name for each tensor.
        opset: Version of ONNX's operators; by default PyTorch's own choice.
        metadata: Texts to keep in the file.

    Raises:
        ExportError: The opset is too old or too new for this PyTorch, or an operator has no counterpart in ONNX.
        ModuleNotFoundError: onnx or onnxscript is not installed.
    """
    require('export', 'onnx', 'onnxscript')
    from .onnx_operators import TRANSLATIONS

    if opset is not None and opset < MIN_OPSET:
        raise ExportError(f'opset {opset} is too old: the exporter writes {MIN_OPSET} and later')
    try:
        onnx = torch.onnx.export(
            program,
            input_names=list(input_names),
            output_names=list(output_names),
            opset_version=opset,
            dynamo=True,
            verbose=False,
            custom_translation_table=TRANSLATIONS,
        )
    except Exception as error:
        raise ExportError(f'torch.onnx.export {torch.__version__}: {error}') from error
    onnx.model.metadata_props.update(metadata or {})
    with written_whole(path) as temporary:
        onnx.save(temporary, external_data=False)
    return Path(path)


def _check_conditions(program: ExportedProgram, name: str) -> None:
    """Hold the conditions of a program against other sizes than it was traced with.

    Raises:
        ExportError: One fails: the first, and at which sizes. Or this PyTorch does not tell.
    """
    if not hasattr(program, '_guards_code'):  # since pytorch#161178
        raise ExportError(
            f'PyTorch {torch.__version__} does not tell at which sizes an exported program holds: export with 2.9 or '
            'later (pip install -U torch); the file runs without PyTorch'
        )
    traced = program.module()
    if not hasattr(traced, '_guards_fn'):
        return  # without any condition
    for shapes in _other_shapes(program):
        try:
            traced._guards_fn(*(torch.empty(shape, device='meta') for shape in shapes))
        except AssertionError as error:
            raise ExportError(
                f'{name} would be wrong for inputs of other sizes, such as {", ".join(map(str, shapes))}: {error}. '
                'Its code asks about sizes in Python; it must compute the same for all.'
            ) from error


def _other_shapes(program: ExportedProgram) -> Iterator[list[tuple[int, ...]]]:
    """Shapes of all inputs: free sides shorter, longer, and equal to each other."""
    names = set(program.graph_signature.user_inputs)
    inputs = [node.meta['val'].shape for node in program.graph.nodes if node.name in names]
    free = {str(side): side.node.hint for side in itertools.chain(*inputs) if isinstance(side, torch.SymInt)}
    choices = [_other_lengths(length) for length in free.values()]
    for lengths in itertools.product(*choices):
        chosen = dict(zip(free, lengths, strict=True))
        yield [tuple(chosen.get(str(side), side) for side in shape) for shape in inputs]


def _other_lengths(length: int) -> list[int]:
    """Images of a batch, or pixels of a side: odd ones, and those beside and far from multiples of strides."""
    return [1, 3] if length == 2 else [length // 2 + 1, length - 1, length + 1, 8 * length, 1333]
