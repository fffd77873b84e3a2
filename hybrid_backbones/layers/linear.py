"""Products over the channels of channels-last maps and tokens: linear layers and 1x1 convolutions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .inference import known_layer


@known_layer
class Pointwise(nn.Conv2d):
    """1x1 convolution as a matrix product over the channels of a channels_last map; (N, C, H, W) in and out."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` of a map or tokens.

    Args:
        x: (N, H, W, C) or (N, T, C).
        weight: (D, C).
        bias: (D,).

    Returns:
        (N, H, W, D) or (N, T, D).
    """
    large = x.ndim == 4 and x.is_cpu and x.shape[1] * x.shape[2] >= 50_000 and not torch.compiler.is_compiling()
    if large and torch.get_num_threads() > 1:
        # Few channels, many pixels: a product bound by memory, to which oneDNN adds the bias without another pass.
        # With one thread, torch does not ask oneDNN.
        return F.conv2d(x.permute(0, 3, 1, 2), weight[:, :, None, None], bias).permute(0, 2, 3, 1)
    return F.linear(x, weight, bias)


def add_linear(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, factor: float = 1.0) -> None:
    """`x += linear(factor * y, weight, bias)`, accumulated by the matrix product itself, without gradients.

    Args:
        x: (..., D), contiguous.
        y: (..., C), contiguous.
    """
    if y.dtype != x.dtype:
        # A GPU's autocast keeps sums in fp32 behind a LayerNorm.
        x.add_(F.linear(y, weight.to(y.dtype) * factor, bias.to(y.dtype)).view_as(x))
        return
    # A view or an error: `flatten` would copy a map of another layout, and the sum would be lost.
    x.view(-1, x.shape[-1]).addmm_(y.flatten(0, -2), weight.to(x.dtype).t(), alpha=factor)
    x.add_(bias)


def gelu_(x: Tensor) -> Tensor:
    """GELU in place: fresh buffers cost a CPU more than the arithmetic on them."""
    return torch.ops.aten.gelu_(x)
