"""Depthwise convolution of channels-last maps, as plain functions for hand-written backward passes."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Types that a CPU's oneDNN lacks: torch falls back to a loop over groups, 60 times slower than fp32.
_SLOW_ON_CPU = {
    dtype
    for dtype, supported in (
        (torch.bfloat16, torch.ops.mkldnn._is_mkldnn_bf16_supported),
        (torch.float16, torch.ops.mkldnn._is_mkldnn_fp16_supported),
    )
    if not supported()
}


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Same-size depthwise convolution.

    Args:
        x: (N, H, W, C), contiguous for speed.
        weight: (C, 1, k, k) with odd k.
        bias: (C,).

    Returns:
        (N, H, W, C) in the dtype of `x`.
    """
    if x.is_cpu and x.dtype in _SLOW_ON_CPU:
        # Autocast would cast the arguments back.
        with torch.autocast('cpu', enabled=False):
            bias = None if bias is None else bias.float()
            return depthwise(x.float(), weight.float(), bias).to(x.dtype)
    out = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=weight.shape[-1] // 2, groups=weight.shape[0])
    return out.permute(0, 2, 3, 1)


def depthwise_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of :func:`depthwise` to `x`, `weight` and `bias`, for `grad` of its output, all in their own dtype."""
    dtype = x.dtype
    if x.is_cpu and dtype in _SLOW_ON_CPU:
        grad, x, weight = grad.float(), x.float(), weight.float()
    channels, pad = weight.shape[0], weight.shape[-1] // 2
    grads = torch.ops.aten.convolution_backward(
        grad.permute(0, 3, 1, 2),
        x.permute(0, 3, 1, 2),
        weight,
        [channels],
        [1, 1],
        [pad, pad],
        [1, 1],
        False,
        [0, 0],
        channels,
        [True, True, True],
    )
    grad_x, grad_weight, grad_bias = (g.to(dtype) for g in grads)
    # The view gives the axis of length one its usual stride, which DistributedDataParallel compares.
    return grad_x.permute(0, 2, 3, 1), grad_weight.flatten().view_as(weight), grad_bias
