"""CARAFE (arXiv 1905.02188): upsampling by a kernel of its own for every pixel of the output.

Shapes, with G groups, kernel side k and scale s: features `(N, C, H, W)`, masks `(N, G * k * k, s * H, s * W)`, output
`(N, C, s * H, s * W)`. mmcv's scratch buffers (`routput`, `rmasks`, `rgrad_*`) are part of the interface; only
`rfeatures` is used, through which its backward pass gets the features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write weighted sums of the `kernel_size` x `kernel_size` features around each output pixel into `output`."""
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, kernel_size, group_size, scale_factor)


def carafe_backward(
    grad_output: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rgrad_output: Tensor,
    rgrad_input_hs: Tensor,
    rgrad_input: Tensor,
    rgrad_masks: Tensor,
    grad_input: Tensor,
    grad_masks: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write the gradients of `carafe_forward` by features and masks."""
    carafe_naive_backward(grad_output, rfeatures, masks, grad_input, grad_masks, kernel_size, group_size, scale_factor)


def carafe_naive_forward(
    features: Tensor, masks: Tensor, output: Tensor, kernel_size: int, group_size: int, scale_factor: int
) -> None:
    """`carafe_forward` without scratch buffers."""
    output.copy_(_reassemble(features, masks, kernel_size, group_size, scale_factor))


def carafe_naive_backward(
    top_grad: Tensor,
    features: Tensor,
    masks: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write the gradients of `carafe_naive_forward` by features and masks into `bottom_grad` and `mask_grad`."""
    with torch.enable_grad():
        operands = [tensor.detach().requires_grad_() for tensor in (features, masks)]
        output = _reassemble(*operands, kernel_size, group_size, scale_factor)
    by_features, by_masks = torch.autograd.grad(output, operands, top_grad)
    bottom_grad.copy_(by_features)
    mask_grad.copy_(by_masks)


def _reassemble(features: Tensor, masks: Tensor, side: int, groups: int, scale: int) -> Tensor:
    n, channels, height, width = features.shape
    # Every pixel of the features is the centre of scale x scale pixels of the output.
    kernels = masks.reshape(n, groups, 1, side * side, height, scale, width, scale).unbind(3)
    padded = F.pad(features, (side // 2,) * 4)
    output: Tensor | float = 0.0
    for place, kernel in enumerate(kernels):
        row, column = divmod(place, side)
        window = padded[:, :, row : row + height, column : column + width]
        output = output + kernel * window.reshape(n, groups, channels // groups, height, 1, width, 1)
    return output.reshape(n, channels, height * scale, width * scale)
