"""Adaptive average pooling as two products, for exporters, which do not take it at sizes that change."""

import torch
from torch import Tensor, nn


class AdaptiveAvgPoolByProducts(nn.Module):
    """`nn.AdaptiveAvgPool2d`: every output is the mean of a rectangle, so rows and columns are averaged by matrices.

    Args:
        height, width: Of the output in pixels; None keeps that of the input.
    """

    def __init__(self, height: int | None, width: int | None) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, height, width)."""
        if self.height is not None:
            x = means(x.shape[2], self.height, x) @ x
        if self.width is not None:
            x = x @ means(x.shape[3], self.width, x).T
        return x


def means(length: int, bins: int, like: Tensor) -> Tensor:
    """(bins, length): row i averages from `floor(i * length / bins)` up to `ceil((i + 1) * length / bins)`."""
    positions = torch.arange(length, device=like.device)
    i = torch.arange(bins, device=like.device).unsqueeze(1)
    first, end = i * length // bins, ((i + 1) * length + bins - 1) // bins
    inside = (positions >= first) & (positions < end)
    return inside.to(like.dtype) / (end - first)


def replace_adaptive_pooling(module: nn.Module) -> nn.Module:
    """Replace every `nn.AdaptiveAvgPool2d` inside `module`, which is changed and returned.

    One to a single pixel is a mean, which exporters know.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.AdaptiveAvgPool2d):
            size = child.output_size
            height, width = size if isinstance(size, tuple) else (size, size)
            if (height, width) != (1, 1):
                setattr(module, name, AdaptiveAvgPoolByProducts(height, width))
        else:
            replace_adaptive_pooling(child)
    return module
