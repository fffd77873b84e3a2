"""Layers on maps and tokens whose last axis is the channels'."""

from torch import Tensor, nn


def call(layer: nn.Module, x: Tensor) -> Tensor:
    """`layer` on `x`, whose last axis is the channels' in both."""
    return layer(x)


def on_map(layer: nn.Module, x: Tensor) -> Tensor:
    """`layer`, which takes (N, C, H, W), on (N, H, W, C)."""
    return layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
