"""Linear layers over the channels of channels-last maps."""

import torch
import torch.nn.functional as F
from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` of a map.

    Args:
        x: (N, H, W, C).
        weight: (D, C).
        bias: (D,).

    Returns:
        (N, H, W, D).
    """
    large = x.is_cpu and x.shape[1] * x.shape[2] >= 50_000 and not torch.compiler.is_compiling()
    if large and torch.get_num_threads() > 1:
        # Few channels, many pixels: a product bound by memory, to which oneDNN adds the bias without another pass.
        # With one thread, torch does not ask oneDNN.
        return F.conv2d(x.permute(0, 3, 1, 2), weight[:, :, None, None], bias).permute(0, 2, 3, 1)
    return F.linear(x, weight, bias)


def add_linear(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> None:
    """`x += linear(y, weight, bias)`, accumulated by the matrix product itself; all of one dtype, without gradients.

    Args:
        x: (N, H, W, D), contiguous.
        y: (N, H, W, C), contiguous.
    """
    # A view or an error: `flatten` would copy a map of another layout, and the sum would be lost.
    x.view(-1, x.shape[-1]).addmm_(y.flatten(0, 2), weight.t())
    x.add_(bias)
