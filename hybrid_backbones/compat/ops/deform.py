"""Deformable convolution, without (arXiv 1703.06211) and with modulation (arXiv 1811.11168), on torchvision's kernels.

Shapes, with K = kernel height x width and D = `deformable_group`: input `(N, C, H, W)`, weight
`(C_out, C / group, kernel_h, kernel_w)`, offset `(N, D * K * 2, H_out, W_out)` with y before x, mask
`(N, D * K, H_out, W_out)`. Gradient buffers are added to, as mmcv's kernels do. mmcv's scratch buffers (`columns`,
`ones`) and its batch step (`im2col_step`) are part of the interface; torchvision's kernels do without.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .kernels import torchvision_kernels, working_dtype


class _Geometry(NamedTuple):
    """The tail of torchvision's argument list."""

    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    dilation_h: int
    dilation_w: int
    groups: int
    offset_groups: int
    use_mask: bool


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Deformable convolution into `output` `(N, C_out, H_out, W_out)`; kernel, stride `d`, pad, dilation by axis."""
    geometry = _Geometry(dH, dW, padH, padW, dilationH, dilationW, group, deformable_group, use_mask=False)
    _forward(output, (input, weight, offset, None, None), geometry)


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Gradients of `deform_conv_forward` by input and offset."""
    geometry = _Geometry(dH, dW, padH, padW, dilationH, dilationW, group, deformable_group, use_mask=False)
    by_input, by_weight, by_offset, _, _ = _backward(gradOutput, (input, weight, offset, None, None), geometry)
    gradInput += by_input
    gradOffset += by_offset
    # torchvision computes all gradients at once, and mmcv asks for the weight's next, passing the same `columns`.
    columns.weight_gradient = (gradOutput, by_weight)


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Gradient of `deform_conv_forward` by the weight, times `scale`."""
    of, by_weight = columns.__dict__.pop('weight_gradient', (None, None))
    if of is not gradOutput:
        # Only the weight's gradient was asked for. The weight's values do not matter to it, its shape does.
        geometry = _Geometry(dH, dW, padH, padW, dilationH, dilationW, group, deformable_group, use_mask=False)
        by_weight = _backward(gradOutput, (input, gradWeight, offset, None, None), geometry)[1]
    gradWeight += scale * by_weight


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Modulated deformable convolution into `output` `(N, C_out, H_out, W_out)`; `bias` is read if `with_bias`."""
    geometry = _Geometry(
        stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group, use_mask=True
    )
    _forward(output, (input, weight, offset, mask, bias if with_bias else None), geometry)


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Gradients of `modulated_deform_conv_forward`; `grad_bias` only if `with_bias`."""
    geometry = _Geometry(
        stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group, use_mask=True
    )
    gradients = _backward(grad_output, (input, weight, offset, mask, bias if with_bias else None), geometry)
    for buffer, gradient in zip((grad_input, grad_weight, grad_offset, grad_mask), gradients[:4], strict=True):
        buffer += gradient
    if with_bias:
        grad_bias += gradients[4]


# input, weight, offset, mask, bias: the last two may be absent.
_Operands = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]


def _complete(operands: _Operands, output: Tensor) -> tuple[Tensor, ...]:
    """The tensors as torchvision takes them: in one precision, stand-ins where there is no mask or bias."""
    input, weight, offset, mask, bias = operands
    if mask is None:
        mask = input.new_zeros(len(input), 0, 0, 0)
    else:
        offset, mask = _of_size(offset, output), _of_size(mask, output)
    bias = input.new_zeros(len(weight)) if bias is None else bias
    dtype = working_dtype(input)
    return tuple(tensor.to(dtype) for tensor in (input, weight, offset, mask, bias))


def _of_size(tensor: Tensor, output: Tensor) -> Tensor:
    """Offsets or mask at the output's height and width.

    Where they are larger, as DyHead's and GLIP's of the next finer level, mmcv's modulated convolution reads the first
    numbers of each image's memory as if they had that size. Without modulation mmcv refuses them.
    """
    size, channels = output.shape[2:], tensor.shape[1]
    count = channels * size.numel()
    if tensor.shape[2:] == size or tensor[0].numel() < count:
        return tensor
    return tensor.flatten(1)[:, :count].unflatten(1, (channels, *size))


def _as_given(gradient: Tensor, tensor: Tensor | None) -> Tensor:
    """The gradient of `_of_size(tensor, output)` as that of `tensor`."""
    if tensor is None or gradient.shape == tensor.shape:
        return gradient
    flat = gradient.flatten(1)
    return F.pad(flat, (0, tensor[0].numel() - flat.shape[1])).view(tensor.shape)


def _forward(output: Tensor, operands: _Operands, geometry: _Geometry) -> None:
    """Write the convolution into `output`."""
    output.copy_(torchvision_kernels().deform_conv2d(*_complete(operands, output), *geometry))


def _backward(grad_output: Tensor, operands: _Operands, geometry: _Geometry) -> tuple[Tensor, ...]:
    """Gradients by input, weight, offset, mask and bias."""
    tensors = _complete(operands, grad_output)
    kernel = torchvision_kernels()._deform_conv2d_backward
    by_input, by_weight, by_offset, by_mask, by_bias = kernel(grad_output.to(tensors[0].dtype), *tensors, *geometry)
    by_offset = by_offset.masked_fill(_at_or_before_minus_one(tensors[2], tensors[1].shape[2:], geometry), 0)
    _, _, offset, mask, _ = operands
    return by_input, by_weight, _as_given(by_offset, offset), _as_given(by_mask, mask), by_bias


def _at_or_before_minus_one(offset: Tensor, kernel: torch.Size, geometry: _Geometry) -> Tensor:
    """The offsets whose samples have y or x <= -1: a mask of the shape of `offset`.

    mmcv's gradient of these is 0; torchvision's is one-sided at exactly -1, where samples of a padded border lie as
    long as offsets are zero.
    """
    (kernel_h, kernel_w), (height, width) = kernel, offset.shape[2:]
    rows = _places(kernel_h, geometry.dilation_h, height, geometry.stride_h, geometry.pad_h, offset)
    columns = _places(kernel_w, geometry.dilation_w, width, geometry.stride_w, geometry.pad_w, offset)
    y, x = offset.unflatten(1, (-1, kernel_h, kernel_w, 2)).unbind(4)
    before = (y + rows[:, None, :, None] <= -1) | (x + columns[:, None] <= -1)
    return before.unsqueeze(4).expand(*before.shape[:4], 2, height, width).reshape(offset.shape)


def _places(kernel: int, dilation: int, size: int, stride: int, padding: int, like: Tensor) -> Tensor:
    """Along one axis, where the taps of a plain convolution read: `(kernel, size)`, on the device of `like`."""
    taps, starts = (torch.arange(count, device=like.device) for count in (kernel, size))
    return taps[:, None] * dilation + starts * stride - padding
