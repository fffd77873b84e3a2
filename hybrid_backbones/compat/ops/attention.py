"""Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159), by mmcv's own definition in torch.

value `(N, keys, heads, channels)`, the maps of all levels one after the other; value_spatial_shapes `(levels, 2)`,
height and width; value_level_start_index `(levels,)`, which the shapes imply; sampling_locations
`(N, queries, heads, levels, points, 2)`, x and y in [0, 1]; attention_weights `(N, queries, heads, levels, points)`.
"""

import torch
from torch import Tensor

from .kernels import working_dtype


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Weighted sum of the bilinear samples: `(N, queries, heads * channels)`."""
    return _attend(value, value_spatial_shapes, sampling_locations, attention_weights).to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Gradients of `ms_deform_attn_forward`, added to the three buffers."""
    sources = [tensor.detach().requires_grad_() for tensor in (value, sampling_locations, attention_weights)]
    with torch.enable_grad():
        output = _attend(sources[0], value_spatial_shapes, *sources[1:])
    gradients = torch.autograd.grad(output, sources, grad_output.to(output.dtype))
    for buffer, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients, strict=True):
        buffer += gradient


def _attend(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    dtype = working_dtype(value)
    value, locations, weights = (tensor.to(dtype) for tensor in (value, locations, weights))
    return multi_scale_deformable_attn_pytorch(value, shapes.tolist(), locations, weights)
