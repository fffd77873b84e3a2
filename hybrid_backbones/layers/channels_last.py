"""Layers on maps and tokens whose last axis is the channels'."""

from torch import Tensor, nn


def on_map(layer: nn.Module, x: Tensor) -> Tensor:
    """`layer`, which takes (N, C, H, W), on (N, H, W, C)."""
    return layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def over_channels(layer: nn.Module, x: Tensor) -> Tensor:
    """A linear layer or 1x1 convolution on (..., C); for a convolution, (N, H, W, C)."""
    return layer(x) if isinstance(layer, nn.Linear) else on_map(layer, x)
