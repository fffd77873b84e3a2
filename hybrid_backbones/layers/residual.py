"""The end of every residual branch: its last layer, layer scale, stochastic depth, and the sum."""

import torch
from torch import Tensor, nn

from .channels_last import over_channels
from .drop_path import DropPath
from .inference import may_read
from .linear import add_linear


def add_branch(x: Tensor, y: Tensor, last: nn.Module, drop_path: DropPath, scale: Tensor | None = None) -> Tensor:
    """`x + drop_path(scale * last(y))`; in inference in place, summed by the matrix product.

    Args:
        x: (..., D), contiguous; overwritten in inference.
        y: (..., C), contiguous.
        last: Linear layer or 1x1 convolution from C to D channels; for a convolution, maps (N, H, W, C).
        drop_path: Stochastic depth of the branch.
        scale: Layer scale (D,); None for none.
    """
    if not drop_path.training and may_read(last):
        add_linear(x, y, *scaled_weights(last, scale))
        return x
    branch = over_channels(last, y)
    if scale is None:
        return x + drop_path(branch)
    scale = scale.to(branch.dtype)
    if drop_path.active:
        return x + drop_path(branch * scale)
    return torch.addcmul(x, branch, scale)


def scaled_weights(layer: nn.Module, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weight (D, C) and bias (D,) of a linear layer or 1x1 convolution with the layer scale behind it."""
    weight, bias = layer.weight.flatten(1), layer.bias
    return (weight, bias) if scale is None else (weight * scale[:, None], bias * scale)


@torch.no_grad()
def fold_scale(layer: nn.Module, scale: Tensor) -> None:
    """Multiply layer scale (D,) into the weights of the layer before it, for good."""
    layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.ndim - 1)))
    layer.bias.mul_(scale)
