"""Regions of interest pooled to a fixed size: RoIAlign (arXiv 1703.06870) and RoIPool (arXiv 1504.08083).

`rois` are `(k, 5)`: index into the batch, x1, y1, x2, y2 in image pixels; `spatial_scale` takes them to the map's.
Averaging RoIAlign is torchvision's kernel. Its maximum, and RoIPool, whose bins mmcv places otherwise than
torchvision (fractional borders instead of rounded ones), are written here on top of torch.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .kernels import torchvision_kernels, working_dtype

MAX, AVG = range(2)
# Elements that are gathered at a time (64 MB of float32).
GATHER_LIMIT = 2**24


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
        argmax_y, argmax_x: if `pool_mode` is 0 (max), buffers like `output` for the winning sample's place on the map,
            -1 where a bin has no sample; else unused.
        sampling_ratio: samples per bin and axis; 0 takes one per pixel of the map.
        pool_mode: 0 max, 1 average.
        aligned: pixel centres at half-integers (shifts the region by half a pixel of the map).
    """
    dtype = working_dtype(input)
    features, regions, size = input.to(dtype), rois.to(dtype), (aligned_height, aligned_width)
    if pool_mode == AVG:
        output.copy_(torchvision_kernels().roi_align(features, regions, spatial_scale, *size, sampling_ratio, aligned))
        return
    # What is set here remains for regions without area, which have no samples.
    output.fill_(torch.finfo(output.dtype).min)
    argmax_y.fill_(-1)
    argmax_x.fill_(-1)
    for grid, rows in groups(samples_per_bin(regions, size, spatial_scale, sampling_ratio, aligned)):
        value, y, x = _strongest_sample(features, regions[rows], size, grid, spatial_scale, aligned)
        output[rows], argmax_y[rows], argmax_x[rows] = value.to(output), y.to(argmax_y), x.to(argmax_x)


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
    """Gradient of `roi_align_forward`, added to `grad_input` `(N, C, H, W)`; other arguments as there."""
    dtype = working_dtype(grad_output)
    gradient, regions = grad_output.to(dtype), rois.to(dtype)
    if pool_mode == AVG:
        grad_input += torchvision_kernels()._roi_align_backward(
            gradient,
            regions,
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
        return
    places, weights = bilinear(argmax_y.to(dtype), argmax_x.to(dtype), grad_input.shape)
    _scatter(grad_input, regions, places, weights * (argmax_y != -1) * gradient)


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Maximum over the pixels that each bin touches; the last pixel named by a roi belongs to it.

    Args:
        input: `(N, C, H, W)`.
        output: `(k, C, pooled_height, pooled_width)`, overwritten; 0 for bins outside the map.
        argmax: int32, like `output`: the winning pixel, `y * W + x`; -1 where there is none.
    """
    regions = rois.to(working_dtype(input)) + rois.new_tensor([0, 0, 0, 1, 1])
    x1, y1, x2, y2 = (regions[:, 1:] * spatial_scale).unbind(1)
    rows, columns = _bins(y1, y2, pooled_height, input.shape[2]), _bins(x1, x2, pooled_width, input.shape[3])
    output.zero_()
    argmax.fill_(-1)
    maps = input.permute(0, 2, 3, 1).contiguous()
    largest = torch.stack([(last - first).amax(1) for first, last in (rows, columns)], dim=1)
    for bin_size, group in groups(largest):
        step = max(1, GATHER_LIMIT // (math.prod(bin_size) * output[0].numel()))
        for k in group.split(step):
            bounds = tuple((first[k], last[k]) for first, last in (rows, columns))
            output[k], argmax[k] = _strongest_pixel(maps, rois[k, 0].long(), *bounds, bin_size)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Gradient of `roi_pool_forward`, added to `grad_input` `(N, C, H, W)`; other arguments as there."""
    dtype = working_dtype(grad_output)
    found = argmax >= 0
    places = torch.where(found, argmax, 0).long()
    _scatter(grad_input, rois, places[None], torch.where(found, grad_output.to(dtype), 0)[None])


def _bins(start: Tensor, end: Tensor, count: int, limit: int) -> tuple[Tensor, Tensor]:
    """First pixel and one past the last of `count` bins between `start` and `end` `(k,)`: two `(k, count)` int64."""
    size = (end - start)[:, None] / count
    steps = torch.arange(count + 1, device=start.device, dtype=start.dtype)
    borders = steps * size + start[:, None]
    first = borders[:, :-1].floor().clamp(0, limit).long()
    last = borders[:, 1:].ceil().clamp(0, limit).long()
    return first, torch.where(size > 0, last, first)


def _strongest_pixel(
    maps: Tensor, batch: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor], bin_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Largest pixel of each bin and its place: value (0 without any) and `y * W + x` (-1), `(k, C, bins, bins)`.

    Args:
        maps: `(N, H, W, C)`.
        batch: `(k,)` indices of the map of each region.
        rows, columns: first pixel and one past the last of each bin, `(k, bins)`.
        bin_size: height and width of the largest bin.
    """
    height, width = maps.shape[1:3]
    y = rows[0][..., None] + torch.arange(bin_size[0], device=maps.device)
    x = columns[0][..., None] + torch.arange(bin_size[1], device=maps.device)
    in_rows, in_columns = y < rows[1][..., None], x < columns[1][..., None]
    # (k, bins, bins, pixels of the bin)
    place = (y[:, :, None, :, None] * width + x[:, None, :, None, :]).flatten(3)
    inside = (in_rows[:, :, None, :, None] & in_columns[:, None, :, None, :]).flatten(3)
    index = torch.where(inside, place + batch[:, None, None, None] * (height * width), 0)
    value, winner = maps.flatten(0, 2)[index].masked_fill(~inside[..., None], -torch.inf).max(dim=3)
    found = inside.any(3)[..., None]
    value, winner = torch.where(found, value, 0), torch.where(found, place.gather(3, winner), -1)
    return value.permute(0, 3, 1, 2), winner.permute(0, 3, 1, 2).to(torch.int32)


def groups(sizes: Tensor) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """Rows of `sizes` `(k, 2)` that are equal, as ((height, width), indices), without those of no size."""
    distinct, member = sizes.unique(dim=0, return_inverse=True)
    for group, (height, width) in enumerate(distinct.tolist()):
        if height > 0 and width > 0:
            yield (height, width), (member == group).nonzero().squeeze(1)


def extent(rois: Tensor, spatial_scale: float, aligned: bool) -> tuple[Tensor, Tensor]:
    """Start (y, x) and size (height, width) of rois on the map, both `(k, 2)`."""
    corners = rois[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)
    start = corners[:, [1, 0]]
    size = corners[:, [3, 2]] - start
    return start, size if aligned else size.clamp(min=1)


def samples_per_bin(rois: Tensor, bins: tuple[int, int], spatial_scale: float, ratio: int, aligned: bool) -> Tensor:
    """`(k, 2)` int64: samples along each bin's height and width."""
    size = extent(rois, spatial_scale, aligned)[1]
    if ratio > 0:
        return torch.full_like(size, ratio, dtype=torch.long)
    return (size / size.new_tensor(bins)).ceil().long()


def _strongest_sample(
    features: Tensor, rois: Tensor, bins: tuple[int, int], grid: tuple[int, int], spatial_scale: float, aligned: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Largest of the `grid` samples of each bin and its place: value, y, x, all `(k, C, *bins)`."""
    samples = (bins[0] * grid[0], bins[1] * grid[1])
    # With one sample per bin, bins as fine as the samples have them exactly in their centres.
    dense = torchvision_kernels().roi_align(features, rois, spatial_scale, *samples, 1, aligned)
    value, index = F.max_pool2d(dense, grid, return_indices=True)
    start, size = (tensor[:, :, None, None, None] for tensor in extent(rois, spatial_scale, aligned))
    y = start[:, 0] + (index // samples[1] + 0.5) * (size[:, 0] / samples[0])
    x = start[:, 1] + (index % samples[1] + 0.5) * (size[:, 1] / samples[1])
    return value, y, x


def bilinear(y: Tensor, x: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """The four pixels around points of a map `(N, C, H, W)` and their weights: two tensors `(4, *y.shape)`.

    Pixels are `y * W + x`, in the order top left, top right, bottom left, bottom right. Points up to one pixel outside
    take the border's value, those beyond have weight 0.
    """
    height, width = shape[2:]
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = y.long(), x.long()
    bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    down, along = y - top, x - left
    places = torch.stack([top * width + left, top * width + right, bottom * width + left, bottom * width + right])
    weights = torch.stack([(1 - down) * (1 - along), (1 - down) * along, down * (1 - along), down * along])
    return places, weights * inside


def _scatter(target: Tensor, rois: Tensor, places: Tensor, values: Tensor) -> None:
    """Add `values` `(p, k, C, h, w)` to `target` `(N, C, H, W)` at `places`, pixels of each roi's map."""
    channels, height, width = target.shape[1:]
    maps = rois[:, :1].long() * channels + torch.arange(channels, device=target.device)
    index = places + (maps * (height * width))[:, :, None, None]
    gradient = values.new_zeros(target.numel()).index_add_(0, index.flatten(), values.flatten())
    target += gradient.view(target.shape)
