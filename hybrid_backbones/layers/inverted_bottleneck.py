"""The wide middle of an inverted bottleneck in inference, a few rows at a time."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Numbers of the wide map that are in memory at a time: 16 MB in fp32, half of a CPU's third-level cache.
_BAND = 2**22


def bands_pay(x: Tensor, weight: Tensor) -> bool:
    """Whether :func:`expand_in_bands` may and should replace the plain layers, for (N, H, W, C) and (D, C)."""
    plain = torch.is_grad_enabled() or torch.compiler.is_compiling() or not x.is_cpu or x.dtype != weight.dtype
    # Autocast does not cast what is written in place.
    return not (plain or torch.is_autocast_enabled('cpu')) and x[0, ..., 0].numel() * weight.shape[0] > 2 * _BAND


def expand_in_bands(
    x: Tensor,
    expand: tuple[Tensor, Tensor],
    depthwise: tuple[Tensor, Tensor],
    stride: int,
    before: tuple[int, int] = (1, 1),
) -> Tensor:
    """`gelu(depthwise(gelu(linear(x))))` without the widened map in memory, which is the largest of a network.

    Fresh large buffers cost a CPU more than the arithmetic on them: here one is used again and again.

    Args:
        x: (N, H, W, C), contiguous.
        expand: Weight (D, C) and bias (D,).
        depthwise: Weight (D, 1, 3, 3) and bias (D,).
        stride: Of the depthwise convolution.
        before: Rows and columns of zeros before the map, 1 or 0, where there are as many behind as it takes.

    Returns:
        (N, ceil(H / stride), ceil(W / stride), D).
    """
    n, height, width, _ = x.shape
    (weight, bias), (kernel, kernel_bias) = expand, depthwise
    top, skipped = before[0], 1 - before[1]
    out = x.new_empty(n, -(-height // stride), -(-width // stride), len(weight))
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
