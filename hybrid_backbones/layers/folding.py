"""BatchNorm with fixed statistics as part of the convolution beside it, differentiable in everything but statistics."""

from torch import Tensor, nn


def fold_behind(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight (D, C, k, k) and bias (D,) of a convolution with the BatchNorm behind it."""
    scale, shift = _affine(norm)
    return weight * scale[:, None, None, None], shift if bias is None else shift + bias * scale


def fold_before(norm: nn.BatchNorm2d, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (D, C, 1, 1) and bias (D,) of a 1x1 convolution without bias, with the BatchNorm in front of it."""
    scale, shift = _affine(norm)
    return weight * scale[:, None, None], weight.flatten(1) @ shift


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale


def set_weights(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    """Replace the parameters of `conv`, which may not have had a bias."""
    conv.weight, conv.bias = (nn.Parameter(t.detach(), conv.weight.requires_grad) for t in (weight, bias))
