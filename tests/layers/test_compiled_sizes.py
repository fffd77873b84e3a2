"""Layers whose code depends on the size of a map compile once for a first size and once for all others."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from hybrid_backbones.layers.attention import decomposed_attention, relative_logits, table_attention
from hybrid_backbones.layers.large_kernel import large_depthwise
from hybrid_backbones.layers.patch_embed import pad_to_multiple
from hybrid_backbones.layers.sizes import ceil_div, to_multiple

SIZES = [(4, 6), (6, 4), (5, 7), (8, 3), (9, 9)]
KERNELS = [(4, 1, 9, 9), (4, 1, 3, 5), (4, 1, 3, 15)]


def heads(*size: int) -> list[Tensor]:
    return [torch.randn(2, 3, *size, 8) for _ in range(3)]


def attend_relatively(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    size = q.shape[2:4]
    q, k, v = (part.flatten(2, 3) for part in (q, k, v))
    return decomposed_attention(q, k, v, *relative_logits(q, size, rows, columns))


FUNCTIONS = {
    'padding': (lambda x: pad_to_multiple(x, 4), lambda h, w: [torch.randn(1, 2, h, w)]),
    'table attention': (table_attention, lambda h, w: [*heads(h, w), torch.randn(3, 2 * h - 1, 2 * w - 1)]),
    'attention by rows and columns': (
        decomposed_attention,
        lambda h, w: [*heads(h * w), torch.randn(2, 3, h * w, h), torch.randn(2, 3, h * w, w)],
    ),
    'attention by relative logits': (
        attend_relatively,
        lambda h, w: [*heads(h, w), torch.randn(2 * h - 1, 8), torch.randn(2 * w - 1, 8)],
    ),
    'large kernels': (
        lambda x, *kernels: large_depthwise(x, kernels),
        lambda h, w: [torch.randn(2, h, w, 4), *(torch.randn(shape) for shape in KERNELS)],
    ),
}


@pytest.mark.parametrize(('function', 'arguments'), FUNCTIONS.values(), ids=FUNCTIONS)
def test_layers_compile_at_most_three_times_for_five_sizes(function: Callable, arguments: Callable):
    torch.compiler.reset()
    counter = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(function, backend=counter, fullgraph=True)
    for size in SIZES:
        given = [argument.requires_grad_() for argument in arguments(*size)]
        ours, theirs = compiled(*given), function(*given)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        gradients = [torch.autograd.grad(out.square().sum(), given) for out in (ours, theirs)]
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)
    assert counter.frame_count <= 3


def test_sizes_are_rounded_up():
    for length in range(50):
        for part in range(1, 9):
            assert ceil_div(length, part) == (length + to_multiple(length, part)) // part
            assert (length + to_multiple(length, part)) % part == 0
            assert 0 <= to_multiple(length, part) < part
