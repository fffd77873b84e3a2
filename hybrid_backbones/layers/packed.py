"""Products with weights that oneDNN has packed: the one place that knows PyTorch's private operator.

On processors without fast kernels in MKL, such as AMD's, they are faster than `F.linear`, and add a bias, an activation
or a residual sum without another pass over the result. Packed weights are kept beside the layers, not in them: no state
dict, copy or pickle of a network has them, and they go with the layer.
"""

import functools
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

# Names of the operator for activations behind a product.
ACTIVATIONS = {'none': 'none', 'gelu': 'gelu', 'silu': 'swish'}
_DTYPES = {torch.float32, torch.bfloat16, torch.float16}
_kept: WeakKeyDictionary[nn.Module, dict[str, tuple]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Weights:
    """Weight (D, C) and bias (D,) or None of a product, as they follow from the parameters of layers.

    Args:
        owner: Layer with which packed weights are kept.
        features: D.
        sources: All tensors that the weights follow from.
        make: Gives weight and bias.
        name: Distinguishes weights of one owner that follow from the same sources in different ways.
        keep: Gives the same, kept from one call to the next where `make` computes them; None for `make`. Packed weights
            come from `make`, so that a layer holds one copy besides its own.
    """

    owner: nn.Module
    features: int
    sources: tuple[Tensor | None, ...]
    make: Callable[[], tuple[Tensor, Tensor | None]]
    name: str = ''
    keep: Callable[[], tuple[Tensor, Tensor | None]] | None = None

    def plain(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias for products of PyTorch."""
        return (self.keep or self.make)()

    def packed(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """Packed weight, and bias, in `dtype`: those kept if no source has changed since, else new ones."""
        state = dtype, *((t.data_ptr(), t._version) for t in self.sources if t is not None)
        entries = _kept.setdefault(self.owner, {})
        if self.name not in entries or entries[self.name][0] != state:
            # Folding under autocast would round twice.
            with torch.no_grad(), torch.autocast('cpu', enabled=False):
                weight, bias = (None if t is None else t.detach().to(dtype) for t in self.make())
                entries[self.name] = state, pack(weight), bias
        return entries[self.name][1:]


def forget(network: nn.Module) -> None:
    """Drop the packed weights of all layers of `network`, before they are moved, cast or trained."""
    if _kept:
        for module in network.modules():
            _kept.pop(module, None)


def pack(weight: Tensor) -> Tensor:
    """(D, C) in oneDNN's own layout, opaque to other operators."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())


def packed_linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = 'none') -> Tensor:
    """`activation(F.linear(x, weight, bias))` of (..., C) with a weight of :func:`pack`."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, ACTIVATIONS[activation], [], 'none')


def packed_add_linear(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`x + F.linear(y, weight, bias)` of (..., D) and (..., C) with a weight of :func:`pack`."""
    return torch.ops.mkldnn._linear_pointwise(y, x, weight, bias, 'add')


def can_pack(x: Tensor, sources: Iterable[Tensor | None] = ()) -> bool:
    """Whether packed products can stand for others: on a CPU, with its dtypes, and nobody following the operators.

    Args:
        x: What a product is of.
        sources: Tensors whose changes must be seen, see :class:`Weights`.
    """
    return (
        not (torch.compiler.is_compiling() or torch.jit.is_tracing())
        and x.is_cpu
        and x.numel() > 0
        and compute_dtype(x) in _DTYPES
        and not any(t is not None and t.is_inference() for t in sources)
        and _get_current_dispatch_mode() is None
        and torch._C._functorch.peek_interpreter_stack() is None  # a transform of torch.func
        and torch.backends.mkldnn.enabled
        and is_available(compute_dtype(x))
    )


def compute_dtype(x: Tensor) -> torch.dtype:
    """That of a product with `x` on a CPU, under autocast too."""
    return torch.get_autocast_dtype('cpu') if torch.is_autocast_enabled('cpu') else x.dtype


@functools.cache
def is_available(dtype: torch.dtype) -> bool:
    """Whether this build of PyTorch, on this processor, has packed products of `dtype` that give what is expected."""
    try:
        with torch.inference_mode(), torch.autocast('cpu', enabled=False):
            x, weight = (torch.arange(n * 64, dtype=dtype).view(n, 64).sin_() for n in (32, 48))
            bias, addend = weight[:, 0].contiguous(), weight.t()[:32].contiguous()
            expected, packed = F.linear(x, weight, bias), pack(weight)
            results = (
                (packed_linear(x, packed, bias), expected),
                (packed_linear(x, packed, bias, 'gelu'), F.gelu(expected)),
                (packed_linear(x, packed, bias, 'silu'), F.silu(expected)),
                (packed_add_linear(addend, x, packed, bias), expected + addend),
            )
            tolerance = 1e-4 if dtype == torch.float32 else 5e-2
            for result, wanted in results:
                torch.testing.assert_close(result, wanted, rtol=tolerance, atol=tolerance)
    except (AttributeError, RuntimeError, AssertionError) as error:
        logging.getLogger(__name__).info('no packed products of %s: %s', dtype, str(error).partition('\n')[0])
        return False
    return True
