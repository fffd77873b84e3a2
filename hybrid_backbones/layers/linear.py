"""Products over the channels of channels-last maps and tokens: linear layers and 1x1 convolutions."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .inference import known_layer, may_read
from .kept import kept
from .packed import Weights, can_pack, compute_dtype, packed_add_linear, packed_linear
from .product_choice import prefers_packed
from .trained_linear import packed_passes, trained_linear


@known_layer
class Pointwise(nn.Conv2d):
    """1x1 convolution as a matrix product over the channels of a channels_last map; (N, C, H, W) in and out."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        own = weight is self.weight
        y = product(x, weights_of(self)) if own and may_read(self) else linear(x, weight.flatten(1), bias)
        return y.permute(0, 3, 1, 2)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` of a map, tokens or vectors; in training with the fastest products.

    Args:
        x: (N, H, W, C), (N, T, C) or (N, C).
        weight: (D, C).
        bias: (D,).

    Returns:
        (N, H, W, D), (N, T, D) or (N, D).
    """
    packed = packed_passes(x, weight)
    if any(packed):
        return trained_linear(x, weight, bias, packed)
    by_size = (
        x.ndim == 4 and x.is_cpu and not torch.compiler.is_compiling()
    )  # first: compilers fix what is asked of sizes
    if by_size and x.shape[1] * x.shape[2] >= 50_000 and torch.get_num_threads() > 1:
        # Few channels, many pixels: a product bound by memory, to which oneDNN adds the bias without another pass.
        # With one thread, torch does not ask oneDNN.
        return F.conv2d(x.permute(0, 3, 1, 2), weight[:, :, None, None], bias).permute(0, 2, 3, 1)
    return F.linear(x, weight, bias)


def project(layer: nn.Module, x: Tensor) -> Tensor:
    """`layer(x)` of a linear layer; in inference as the fastest product."""
    return product(x, weights_of(layer)) if may_read(layer) else layer(x)


def weights_of(layer: nn.Module, scale: Tensor | None = None) -> Weights:
    """Those of a linear layer or 1x1 convolution, with the layer scale (D,) behind it if there is one."""

    def make() -> tuple[Tensor, Tensor | None]:
        weight, bias = layer.weight.flatten(1), layer.bias
        return (weight, bias) if scale is None else (weight * scale[:, None], bias * scale)

    sources = layer.weight, layer.bias, scale
    keep = None if scale is None else partial(kept, layer, sources, make)
    return Weights(layer, layer.weight.shape[0], sources, make, keep=keep)


def product(x: Tensor, weights: Weights, activation: str = 'none') -> Tensor:
    """Activation of the product of (..., C) with the weights of layers that may be read, without gradients.

    Args:
        activation: `none`, `gelu` or `silu`.

    Returns:
        (..., D).
    """
    if can_pack(x, weights.sources) and _prefers_packed(x, weights, activation):
        dtype = compute_dtype(x)
        return packed_linear(x.to(dtype), *weights.packed(dtype), activation)
    y = linear(x, *weights.plain())
    if activation == 'none':
        return y
    return gelu_(y) if activation == 'gelu' else F.silu(y, inplace=True)


def _prefers_packed(x: Tensor, weights: Weights, kind: str) -> bool:
    inputs = x.shape[-1]
    return prefers_packed(x.numel() // max(1, inputs), inputs, weights.features, compute_dtype(x), kind)


def add_product(x: Tensor, y: Tensor, weights: Weights) -> Tensor:
    """Sum of `x` and the product of `y` with the weights of layers that may be read, without gradients.

    Args:
        x: (..., D), contiguous; may be overwritten.
        y: (..., C), contiguous.
    """
    if y.dtype != x.dtype:
        # Autocast may keep sums in fp32 behind a LayerNorm.
        weight, bias = weights.plain()
        return x.add_(F.linear(y, weight.to(y.dtype), None if bias is None else bias.to(y.dtype)).view_as(x))
    if can_pack(y, weights.sources) and compute_dtype(y) == y.dtype and _prefers_packed(y, weights, 'add'):
        # A view or an error, as below: a copy of a map in another layout would hide the caller's mistake.
        rows = x.view(-1, x.shape[-1])
        return packed_add_linear(rows, y.flatten(0, -2), *weights.packed(y.dtype)).view_as(x)
    weight, bias = weights.plain()
    x.view(-1, x.shape[-1]).addmm_(y.flatten(0, -2), weight.to(x.dtype).t())
    return x if bias is None else x.add_(bias)


def gelu_(x: Tensor) -> Tensor:
    """GELU in place: fresh buffers cost a CPU more than the arithmetic on them."""
    return torch.ops.aten.gelu_(x)
