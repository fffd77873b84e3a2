"""Products of linear layers in training, forward and backward, each the fastest one of a CPU."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import Function, FunctionCtx

from .packed import can_pack, compute_dtype, pack, packed_linear
from .product_choice import prefers

# Whether products are with packed factors: of the forward pass, for the gradient of the input, for that of the weight.
Passes = tuple[bool, bool, bool]


def packed_passes(x: Tensor, weight: Tensor) -> Passes:
    """Which products of training are faster with factors that are packed anew every time.

    None where nothing is trained, and where compilers, exporters or transforms of `torch.func` follow the operators.

    Args:
        x: (..., C).
        weight: (D, C).
    """
    trained = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if not (trained and x.ndim > 1 and can_pack(x) and type(x) is Tensor and type(weight) in (Tensor, nn.Parameter)):
        return False, False, False
    needed = True, x.requires_grad, weight.requires_grad
    return preferred_passes(x.numel() // x.shape[-1], x.shape[-1], len(weight), compute_dtype(x), needed)


def preferred_passes(
    rows: int, inputs: int, outputs: int, dtype: torch.dtype, needed: Passes = (True, True, True)
) -> Passes:
    """Which of the products that are needed are faster with packed factors, for a layer of these features."""
    shapes = {
        'forward': (rows, inputs, outputs),
        'input gradient': (rows, outputs, inputs),
        'weight gradient': (outputs, rows, inputs),
    }
    pairs = zip(needed, shapes.items(), strict=True)
    forward, of_input, of_weight = (wanted and prefers(kind, shape, dtype, _steps) for wanted, (kind, shape) in pairs)
    return forward, of_input, of_weight


def trained_linear(x: Tensor, weight: Tensor, bias: Tensor | None, packed: Passes) -> Tensor:
    """`F.linear` with the products that :func:`packed_passes` chose."""
    dtype = compute_dtype(x)
    return _Linear.apply(packed, *(None if t is None else t.to(dtype) for t in (x, weight, bias)))


class _Linear(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, packed: Passes, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.packed = packed
        return _output(x, weight, bias, packed[0])

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        # Second derivatives take operators that have them.
        of_input, of_weight = (packed and not torch.is_grad_enabled() for packed in ctx.packed[1:])
        _, for_x, for_weight, for_bias = ctx.needs_input_grad
        rows = grad.flatten(0, -2)
        return (
            None,
            _input_gradient(grad, weight, of_input) if for_x else None,
            _weight_gradient(rows, x.flatten(0, -2), of_weight) if for_weight else None,
            rows.sum(0) if for_bias else None,
        )


def _output(x: Tensor, weight: Tensor, bias: Tensor | None, packed: bool) -> Tensor:
    return packed_linear(x, pack(weight), bias) if packed else F.linear(x, weight, bias)


def _input_gradient(grad: Tensor, weight: Tensor, packed: bool) -> Tensor:
    return packed_linear(grad, pack(weight.t()), None) if packed else grad @ weight


def _weight_gradient(grad: Tensor, x: Tensor, packed: bool) -> Tensor:
    return packed_linear(grad.t(), pack(x.t()), None) if packed else grad.t() @ x


def _steps(
    shape: tuple[int, int, int], dtype: torch.dtype, kind: str
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Both ways of a product (rows, inputs) x (inputs, outputs), as it is laid out in that pass."""
    rows, inputs, outputs = shape
    if kind == 'weight gradient':
        grad, x = torch.ones(inputs, rows, dtype=dtype), torch.ones(inputs, outputs, dtype=dtype)
        return lambda: _weight_gradient(grad, x, False), lambda: _weight_gradient(grad, x, True)
    x = torch.ones(rows, inputs, dtype=dtype)
    if kind == 'input gradient':
        weight = torch.ones(inputs, outputs, dtype=dtype)
        return lambda: _input_gradient(x, weight, False), lambda: _input_gradient(x, weight, True)
    weight, bias = torch.ones(outputs, inputs, dtype=dtype), torch.ones(outputs, dtype=dtype)
    return lambda: _output(x, weight, bias, False), lambda: _output(x, weight, bias, True)
