"""`--speed`: the rate of this CPU's matrix products by every library, and which of them the package uses."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F

from .._timing import timed
from ..layers.packed import is_available, pack, packed_linear
from ..layers.packed_attention import prefers_packed_attention
from ..layers.product_choice import prefers_packed
from ..layers.trained_linear import preferred_passes
from ..profiling.speed.machine import available_processors

# Rows, inputs and outputs: MLPs of a plain backbone at 800x1344, of a pyramid's first stage, and a large product.
SHAPES = (4200, 384, 1536), (4200, 1536, 384), (16800, 144, 576), (4096, 4096, 4096)
# Queries, keys and channels of a head.
ATTENTION = (4200, 4200, 64), (16800, 4200, 64)
_REPETITIONS = 3


@torch.inference_mode()
def table() -> str:
    """GFLOP/s in fp32 by shape and library, and what the package chooses for inference, training and attention."""
    libraries = ('F.linear', '1x1 conv2d', 'packed', 'NumPy')
    lines = [
        f'Matrix products in fp32, GFLOP/s, {torch.get_num_threads()} threads; a head of attention below',
        ''.join([f'{"rows x in x out":20}', *(f'{library:>12}' for library in libraries), '   chosen']),
    ]
    for shape in SHAPES:
        seconds = {library: _least_seconds(product) for library, product in _products(*shape)}
        rates = (
            f'{2e-9 * np.prod(shape) / seconds[name]:12.0f}' if name in seconds else f'{"-":>12}' for name in libraries
        )
        lines.append(''.join([f'{_name(shape):20}', *rates, f'   {_chosen(*shape)}']))
    for queries, keys, dim in ATTENTION:
        packed = prefers_packed_attention(queries, keys, dim, biased=False)
        lines.append(f'{_name((queries, keys, dim)):20}   attention: {"packed" if packed else "PyTorch"}')
    return '\n'.join(lines)


def _name(shape: tuple[int, int, int]) -> str:
    return ' x '.join(map(str, shape))


def _least_seconds(product: Callable[[], object]) -> float:
    product()
    return min(timed(product, 'cpu') for _ in range(_REPETITIONS))


def _products(rows: int, inputs: int, outputs: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Names of libraries, and the same product by each."""
    x, weight = torch.randn(rows, inputs), torch.randn(outputs, inputs)
    yield 'F.linear', lambda: F.linear(x, weight)
    # Of a map with one row, laid out as its matrix is.
    image, kernel = x.t()[None, :, None], weight[:, :, None, None]
    yield '1x1 conv2d', lambda: F.conv2d(image, kernel)
    if is_available(torch.float32):
        packed = pack(weight)
        yield 'packed', lambda: packed_linear(x, packed, None)
    if torch.get_num_threads() == available_processors():  # NumPy's library has a thread for every processor
        yield 'NumPy', lambda: x.numpy() @ weight.numpy().T


def _chosen(rows: int, inputs: int, outputs: int) -> str:
    """What the package uses for a linear layer of this shape."""
    inference = prefers_packed(rows, inputs, outputs, torch.float32, 'none')
    passes = zip(('forward', 'input', 'weight'), preferred_passes(rows, inputs, outputs, torch.float32), strict=True)
    trained = [name for name, packed in passes if packed]
    return f'{"packed" if inference else "F.linear"}; in training packed: {", ".join(trained) or "none"}'
