"""mmcv's own synchronized batch normalization (`MMSyncBN`), which averages statistics over processes in Python.

Shapes: input, norm, output and gradients `(N, C, L)`; mean, var, std, weight, bias and running statistics `(C,)`.
"""

import torch
from torch import Tensor


def sync_bn_forward_mean(input: Tensor, mean: Tensor) -> None:
    """Write each channel's mean."""
    mean.copy_(input.float().mean((0, 2)))


def sync_bn_forward_var(input: Tensor, mean: Tensor, var: Tensor) -> None:
    """Write each channel's mean squared distance from `mean`."""
    var.copy_((input.float() - mean[:, None]).square().mean((0, 2)))


def sync_bn_forward_output(
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    norm: Tensor,
    std: Tensor,
    output: Tensor,
    eps: float,
    momentum: float | Tensor,
    group_size: int,
) -> None:
    """Write standard deviations, normalized and scaled features; move the running statistics by `momentum`."""
    std.copy_((var + eps).sqrt())
    norm.copy_((input.float() - mean[:, None]) / std[:, None])
    output.copy_(norm if weight is None else norm * weight[:, None] + bias[:, None])
    if running_mean is not None:
        count = input.numel() // len(mean) * group_size
        unbiased = var * (count / (count - 1)) if count > 1 else var
        running_mean.copy_(torch.lerp(running_mean, mean, momentum))
        running_var.copy_(torch.lerp(running_var, unbiased, momentum))


def sync_bn_backward_param(grad_output: Tensor, norm: Tensor, grad_weight: Tensor, grad_bias: Tensor) -> None:
    """Write the gradients by weight and bias."""
    grad_weight.copy_((grad_output.float() * norm).sum((0, 2)))
    grad_bias.copy_(grad_output.float().sum((0, 2)))


def sync_bn_backward_data(
    grad_output: Tensor,
    weight: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    norm: Tensor,
    std: Tensor,
    grad_input: Tensor,
) -> None:
    """Write the gradient by the input, given those by weight and bias, averaged over processes."""
    count = norm.numel() // len(std)
    shared = (grad_weight[:, None] * norm + grad_bias[:, None]) / count
    grad_input.copy_((grad_output.float() - shared) * (weight / std)[:, None])
