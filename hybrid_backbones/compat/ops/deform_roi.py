"""Deformable RoI pooling (arXiv 1703.06211): averaging RoIAlign whose bins are shifted by offsets of their own.

Shapes, with P x Q bins: input `(N, C, H, W)`, rois `(k, 5)` as in `roi`, offset `(k, 2, P, Q)` with x before y, in
units of `gamma` times the region's size, or empty for none; output `(k, C, P, Q)`. Gradients are mmcv's, also
where samples lie at the border: there the offset's is that of the unclamped sample.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .kernels import working_dtype
from .roi import GATHER_LIMIT, bilinear, extent, groups, samples_per_bin


class _Pooling(NamedTuple):
    """The tail of mmcv's argument list."""

    height: int
    width: int
    spatial_scale: float
    sampling_ratio: int
    gamma: float


class _Samples(NamedTuple):
    """The S samples of each bin of k regions with the same S."""

    regions: Tensor  # (k,): their indices
    size: Tensor  # (k, 2): height and width on the map
    y: Tensor  # (k, P, Q, S)
    x: Tensor


def deform_roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Write the average of each bin's bilinear samples into `output`, 0 for regions without area."""
    pooling = _Pooling(pooled_height, pooled_width, spatial_scale, sampling_ratio, gamma)
    dtype = working_dtype(input)
    pixels = input.to(dtype).permute(0, 2, 3, 1).flatten(0, 2)
    output.zero_()
    for samples in _samples(rois.to(dtype), offset.to(dtype), pooling, input.shape[1]):
        places, weights, _ = _corners(samples, rois, input.shape)
        values = torch.einsum('okpqs,okpqsc->kcpq', weights, pixels[places])
        output[samples.regions] = (values / samples.y.shape[-1]).to(output)


def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Gradients of `deform_roi_pool_forward`, added to `grad_input` and, where there are offsets, `grad_offset`."""
    pooling = _Pooling(pooled_height, pooled_width, spatial_scale, sampling_ratio, gamma)
    dtype = working_dtype(input)
    pixels = input.to(dtype).permute(0, 2, 3, 1).flatten(0, 2)
    by_pixel = torch.zeros_like(pixels)
    for samples in _samples(rois.to(dtype), offset.to(dtype), pooling, input.shape[1]):
        places, weights, slopes = _corners(samples, rois, input.shape)
        gradient = grad_output[samples.regions].to(dtype).permute(0, 2, 3, 1) / samples.y.shape[-1]
        by_sample = weights[..., None] * gradient[:, :, :, None]
        by_pixel.index_add_(0, places.flatten(), by_sample.flatten(0, -2))
        if offset.numel():
            along = torch.einsum('aokpqs,okpqsc,kpqc->kapq', slopes, pixels[places], gradient)
            grad_offset[samples.regions] += (gamma * samples.size.flip(1)[:, :, None, None] * along).to(grad_offset)
    grad_input += by_pixel.view(input.shape[0], *input.shape[2:], -1).permute(0, 3, 1, 2)


def _samples(rois: Tensor, offset: Tensor, pooling: _Pooling, channels: int) -> Iterator[_Samples]:
    """The samples of all regions that have any, of as many regions at a time as fit into `GATHER_LIMIT`."""
    bins = pooling[:2]
    starts, sizes = extent(rois, pooling.spatial_scale, aligned=True)
    counts = samples_per_bin(rois, bins, pooling.spatial_scale, pooling.sampling_ratio, aligned=True)
    for grid, group in groups(counts):
        step = max(1, GATHER_LIMIT // (4 * bins[0] * bins[1] * grid[0] * grid[1] * channels))
        for k in group.split(step):
            size = sizes[k]
            y, x = (starts[k, a, None] + _along(bins[a], grid[a], rois) * size[:, a, None] / bins[a] for a in (0, 1))
            y = y.view(-1, bins[0], 1, grid[0], 1).expand(-1, *bins, *grid)
            x = x.view(-1, 1, bins[1], 1, grid[1]).expand(-1, *bins, *grid)
            if offset.numel():
                shift = pooling.gamma * size.flip(1)[:, :, None, None] * offset[k]
                x, y = (place + shift[:, a, :, :, None, None] for a, place in enumerate((x, y)))
            yield _Samples(k, size, y.flatten(3), x.flatten(3))


def _along(bins: int, samples: int, like: Tensor) -> Tensor:
    """Places of all samples along one axis, in bins: `(bins * samples,)`."""
    return (torch.arange(bins * samples, device=like.device, dtype=like.dtype) + 0.5) / samples


def _corners(samples: _Samples, rois: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
    """The four pixels around each sample on maps `(N, C, H, W)`.

    Returns:
        Their indices into all pixels of the batch and their weights, both `(4, k, P, Q, S)`, and the derivatives of
        the weights by x and y, `(2, 4, k, P, Q, S)`.
    """
    batch = rois[samples.regions, 0].long()[:, None, None, None]
    places, weights = bilinear(samples.y, samples.x, shape)
    (top, left), (bottom, right) = ((place // shape[3], place % shape[3]) for place in (places[0], places[3]))
    above, below, before, after = bottom - samples.y, samples.y - top, right - samples.x, samples.x - left
    by_x = torch.stack([-above, above, -below, below])
    by_y = torch.stack([-before, -after, before, after])
    inside = weights.sum(0) > 0
    return places + batch * shape[2:].numel(), weights, torch.stack([by_x, by_y]) * inside
