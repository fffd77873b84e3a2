"""Regions of interest pooled to a fixed size: RoIAlign (arXiv 1703.06870) and RoIPool (arXiv 1504.08083).

`rois` are `(k, 5)`: index into the batch, x1, y1, x2, y2 in image pixels; `spatial_scale` takes them to the map's.
"""

from torch import Tensor

from .kernels import torchvision_kernels, working_dtype

MAX, AVG = range(2)


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Bilinear samples of each bin, averaged or their maximum.

    Args:
        input: `(N, C, H, W)`.
        output: `(k, C, aligned_height, aligned_width)`, overwritten.
        argmax_y, argmax_x: like `output` if `pool_mode` is 0 (max): the winning sample's place on the map; else unused.
        sampling_ratio: samples per bin and axis; 0 takes one per pixel of the map.
        pool_mode: 0 max, 1 average.
        aligned: pixel centres at half-integers (the map is shifted by half a pixel).
    """
    if pool_mode == MAX:
        raise NotImplementedError('RoIAlign with pool_mode max')
    dtype = working_dtype(input)
    features, regions = input.to(dtype), rois.to(dtype)
    output.copy_(
        torchvision_kernels().roi_align(
            features, regions, spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned
        )
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Gradient of `roi_align_forward`, added to `grad_input` `(N, C, H, W)`."""
    dtype = working_dtype(grad_output)
    gradient = torchvision_kernels()._roi_align_backward(
        grad_output.to(dtype),
        rois.to(dtype),
        spatial_scale,
        aligned_height,
        aligned_width,
        *grad_input.shape,
        sampling_ratio,
        aligned,
    )
    grad_input.add_(gradient)
