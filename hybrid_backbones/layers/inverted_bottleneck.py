"""The wide middle of an inverted bottleneck (arXiv 1801.04381): expansion and 3x3 depthwise convolution.

In inference without the widened map in memory, which is the largest of a network.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .channels_last import on_map
from .folding import convolve_folded, folded, has_fixed_statistics
from .inference import may_read
from .linear import gelu_

# Numbers of the wide map that are in memory at a time: 16 MB in fp32, half of a CPU's third-level cache.
_BAND = 2**22


def expand_depthwise(
    x: Tensor,
    expand: nn.Module,
    expand_norm: nn.Module,
    depthwise: nn.Module,
    depthwise_norm: nn.Module,
    pre_norm: nn.Module | None = None,
    zeros_before: Sequence[int] = (1, 1),
) -> Tensor:
    """`gelu(depthwise_norm(depthwise(gelu(expand_norm(expand(pre_norm(x)))))))`.

    Layers are on (N, C, H, W). In inference BatchNorms are part of the convolutions beside them, and large maps are
    widened a few rows at a time.

    Args:
        x: (N, H, W, C), contiguous.
        expand: 1x1 convolution from C to D channels.
        expand_norm: BatchNorm behind it; `nn.Identity` when folded for good, like the others.
        depthwise: 3x3 depthwise convolution.
        depthwise_norm: BatchNorm behind it.
        pre_norm: BatchNorm in front of all; None for none.
        zeros_before: Rows and columns of padding before the map, 1 or 0, where there are as many behind as it takes.

    Returns:
        (N, ceil(H / stride), ceil(W / stride), D).
    """
    norms = [norm for norm in (pre_norm, expand_norm, depthwise_norm) if norm is not None]
    if not (may_read(expand, depthwise, *norms) and has_fixed_statistics(*norms)):
        y = x if pre_norm is None else on_map(pre_norm, x)
        y = F.gelu(on_map(expand_norm, on_map(expand, y)))
        return F.gelu(on_map(depthwise_norm, on_map(depthwise, y)))
    if banded(x, expand.weight):
        first, second = folded(expand, expand_norm, pre_norm), folded(depthwise, depthwise_norm)
        return expand_in_bands(x.contiguous(), first, second, depthwise.stride[0], zeros_before)
    y = convolve_folded(convolve_folded(x, expand, expand_norm, pre_norm, 'gelu'), depthwise, depthwise_norm)
    # A crop goes to a new buffer: what follows reads it without gaps.
    return gelu_(y) if y.is_contiguous() else F.gelu(y)


def banded(x: Tensor, weight: Tensor) -> bool:
    """Whether :func:`expand_in_bands` is faster, without gradients, for (N, H, W, C) and a weight (D, C, 1, 1)."""
    # Autocast does not cast what is written in place.
    supported = x.is_cpu and x.dtype == weight.dtype and not torch.is_autocast_enabled('cpu')
    return supported and x[0, ..., 0].numel() * weight.shape[0] > 2 * _BAND


def expand_in_bands(
    x: Tensor,
    expand: tuple[Tensor, Tensor],
    depthwise: tuple[Tensor, Tensor],
    stride: int,
    zeros_before: Sequence[int] = (1, 1),
) -> Tensor:
    """`gelu(depthwise(gelu(expand(x))))` without the widened map in memory, and without gradients.

    Fresh large buffers cost a CPU more than the arithmetic on them: here one is used again and again.

    Args:
        x: (N, H, W, C), contiguous.
        expand: Weight (D, C, 1, 1) and bias (D,).
        depthwise: Weight (D, 1, 3, 3) and bias (D,).
        stride: Of the depthwise convolution.
        zeros_before: Rows and columns of padding before the map, 1 or 0.

    Returns:
        (N, ceil(H / stride), ceil(W / stride), D).
    """
    n, height, width, _ = x.shape
    (weight, bias), (kernel, kernel_bias) = expand, depthwise
    weight = weight.flatten(1)
    top, skipped = zeros_before[0], 1 - zeros_before[1]
    out = x.new_empty(n, (height + stride - 1) // stride, (width + stride - 1) // stride, len(weight))
    at_a_time = max(1, _BAND // (stride * width * len(weight)))
    band = x.new_empty((at_a_time - 1) * stride + 3, width, len(weight))
    for image, result in zip(x, out, strict=True):
        for start, rows in zip(range(0, len(result), at_a_time), result.split(at_a_time), strict=True):
            first = start * stride - top
            last = first + (len(rows) - 1) * stride + 3
            inside = slice(max(first, 0), min(last, height))
            under = band[: last - first]
            under[: inside.start - first] = 0
            under[inside.stop - first :] = 0
            hidden = under[inside.start - first : inside.stop - first].flatten(0, 1)
            torch.addmm(bias, image[inside].flatten(0, 1), weight.t(), out=hidden)
            torch.ops.aten.gelu_(hidden)
            # Two columns of zeros on both sides for one behind: the first output is dropped.
            y = F.conv2d(
                under.permute(2, 0, 1)[None], kernel, kernel_bias, stride, (0, 1 + skipped), groups=len(kernel)
            )
            torch.ops.aten.gelu_(y)
            rows.copy_(y[0, :, :, skipped:].permute(1, 2, 0))
    return out
