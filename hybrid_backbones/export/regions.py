"""Regions of interest pooled from the levels of a pyramid (RoIAlign, arXiv 1703.06870), in exportable form."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align


class Regions(NamedTuple):
    """What was pooled, level by level, and where it belongs.

    Args:
        features: `(n, C, h, w)` of the regions that are there.
        places: `(n,)` of them among the `images * count` regions; one more place stands for none.
        images, count: `B` and `R`.
    """

    features: Tensor
    places: Tensor
    images: int
    count: int

    def spread(self, values: Tensor) -> Tensor:
        """`values` `(n, ...)` in their places `(B, R, ...)`, with zeros for regions that are not there."""
        empty = values.new_zeros(self.images * self.count + 1, *values.shape[1:])
        return empty.index_put((self.places,), values)[:-1].reshape(self.images, self.count, *values.shape[1:])

    def pick(self, values: Tensor) -> Tensor:
        """`(n, ...)` of `values` `(B, R, ...)`, for the regions that were pooled."""
        return F.pad(values.flatten(0, 1), (0, 0) * (values.ndim - 2) + (0, 1))[self.places]


class RegionPool(nn.Module):
    """Each region is pooled from the level that suits its size (arXiv 1612.03144).

    Args:
        extractor: mmdet's `SingleRoIExtractor` with RoIAlign.
    """

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.finest_scale = extractor.finest_scale
        self.layers = extractor.roi_layers

    def forward(self, maps: Sequence[Tensor], boxes: Tensor, found: Tensor) -> Regions:
        """The regions that are there.

        Args:
            maps: `(B, C, H_i, W_i)` of each level; the pool takes the first of them.
            boxes: `(B, R, 4)`.
            found: `(B, R)` bool.
        """
        images, count = found.shape
        image = torch.arange(images, device=boxes.device)[:, None, None].expand(-1, count, 1)
        rows = F.pad(torch.cat([image.to(boxes), boxes], -1).flatten(0, 1), (0, 0, 0, 1))
        level_of = torch.where(found, self._level_of(boxes), -1).flatten()
        places = [_rows_of(level_of == level) for level in range(len(self.layers))]
        levels = zip(self.layers, maps[: len(self.layers)], places, strict=True)
        pooled = [_pool(layer, features, rows[place]) for layer, features, place in levels]
        return Regions(torch.cat(pooled), torch.cat(places), images, count)

    def _level_of(self, boxes: Tensor) -> Tensor:
        """mmdet's `floor(log2(scale / finest_scale + 1e-6))`, by comparison: engines round logarithms differently."""
        scale = ((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])).sqrt() / self.finest_scale + 1e-6
        borders = scale.new_tensor([2.0**level for level in range(1, len(self.layers))])
        return (scale[..., None] >= borders).sum(-1)


def _pool(layer: nn.Module, features: Tensor, regions: Tensor) -> Tensor:
    return roi_align(
        features,
        regions,
        output_size=layer.output_size,
        spatial_scale=layer.spatial_scale,
        sampling_ratio=layer.sampling_ratio,
        aligned=layer.aligned,
    )


def _rows_of(present: Tensor) -> Tensor:
    """Places `(n,)` of what is there in `(N,)` bool; never none: if nothing is there, `N`, the place after the last.

    Engines differ in what they do with tensors of no rows.
    """
    return torch.cat([present, ~present.any(0, keepdim=True)]).nonzero().squeeze(1)
