"""Depthwise convolution of channels-last maps, in parts that stay in a CPU's cache where that is faster."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .inference import known_layer

# Types that a CPU's oneDNN lacks: torch falls back to a loop over groups, 60 times slower than fp32.
_SLOW_ON_CPU = {
    dtype
    for dtype, supported in (
        (torch.bfloat16, torch.ops.mkldnn._is_mkldnn_bf16_supported),
        (torch.float16, torch.ops.mkldnn._is_mkldnn_fp16_supported),
    )
    if not supported()
}


def _at_a_time(x: Tensor, weight: Tensor) -> int:
    """Channels to convolve together.

    The rows under a large kernel outgrow a CPU's second-level cache: at 200x336 pixels, 72 channels and a kernel of 11,
    parts of 24 channels take 0.85 of the time forward and 0.45 backward.
    """
    large = weight.shape[-1] >= 9 and x.is_cpu and not torch.compiler.is_compiling()
    return 24 if large and x.shape[1] * x.shape[2] >= 10_000 else weight.shape[0]


@known_layer
class Depthwise(nn.Conv2d):
    """Depthwise convolution with an odd kernel, same-size but for its stride; (N, C, H, W) in and out, channels_last.

    Adapters build layers of the same class with other groups: those are plain convolutions.
    """

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self.in_channels == self.out_channels == self.groups:
            return super()._conv_forward(x, weight, bias)
        weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
        x = depthwise(x.permute(0, 2, 3, 1), weight, bias, self.stride[0], dilation=self.dilation[0])
        return x.permute(0, 3, 1, 2)


def depthwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: Sequence[int] | None = None,
    dilation: int = 1,
) -> Tensor:
    """Depthwise convolution, same-size but for its stride.

    Args:
        x: (N, H, W, C), contiguous for speed.
        weight: (C, 1, k, k) with odd k.
        bias: (C,).
        stride: Of the output's pixels.
        padding: Rows and columns of zeros on each side, instead of those that keep the size.
        dilation: Pixels from one tap of the kernel to the next.

    Returns:
        (N, ceil(H / stride), ceil(W / stride), C) in the dtype of `x`, larger by what `padding` adds.
    """
    if x.is_cpu and x.dtype in _SLOW_ON_CPU:
        # Autocast would cast the arguments back.
        with torch.autocast('cpu', enabled=False):
            bias = None if bias is None else bias.float()
            return depthwise(x.float(), weight.float(), bias, stride, padding, dilation).to(x.dtype)
    if stride > 1 or padding is not None or dilation > 1 or _at_a_time(x, weight) >= weight.shape[0]:
        return _convolve(x, weight, bias, stride, padding, dilation)
    return _InParts.apply(x, weight, bias) if torch.is_grad_enabled() else _convolve_in_parts(x, weight, bias)


class _InParts(Function):
    """Same-size depthwise convolution, some channels at a time, forward and backward."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _convolve_in_parts(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        step = _at_a_time(x, weight)
        parts = [slice(start, start + step) for start in range(0, weight.shape[0], step)]
        of_parts = [
            _convolve_backward(grad[..., part].contiguous(), x[..., part].contiguous(), weight[part]) for part in parts
        ]
        grads = (torch.cat(g, dim) for g, dim in zip(zip(*of_parts, strict=True), (-1, 0, 0), strict=True))
        grad_x, grad_weight, grad_bias = grads
        # The view gives the axis of length one its usual stride, which DistributedDataParallel compares.
        return grad_x, grad_weight.flatten().view_as(weight), grad_bias if ctx.has_bias else None


def _convolve_in_parts(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out = torch.empty_like(x)
    step = _at_a_time(x, weight)
    for start in range(0, weight.shape[0], step):
        part = slice(start, start + step)
        out[..., part] = _convolve(x[..., part].contiguous(), weight[part], None if bias is None else bias[part])
    return out


def _convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int = 1,
    padding: Sequence[int] | None = None,
    dilation: int = 1,
) -> Tensor:
    padding = dilation * (weight.shape[-1] // 2) if padding is None else padding
    # Through this view, a gradient has the parameter's own strides, which DistributedDataParallel compares.
    weight = weight.flatten().view_as(weight)
    out = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, stride, padding, dilation, weight.shape[0])
    return out.permute(0, 2, 3, 1)


def _convolve_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    channels, pad = weight.shape[0], weight.shape[-1] // 2
    grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
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
    return grad_x.permute(0, 2, 3, 1), grad_weight, grad_bias
