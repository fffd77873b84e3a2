"""Relative-position tables at the size of the map at hand, whatever size they were learned at."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Multi-scale evaluation meets a handful of sizes again and again; a table of each is small.
_SIZES_KEPT = 8


class SizeCache(nn.Module):
    """What follows from a parameter and a map's size alone, kept for the last few sizes in inference.

    Never kept while training, where the parameter changes at every step and its gradient is wanted, nor in a compiled
    graph. Any call of `train()` or `eval()` empties it: averaged weights are swapped in through `.data`, which no
    version counter sees, but not without going to eval mode.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[tuple, Tensor] = {}

    def forward(self, parameter: Tensor, size: tuple[int, ...], make: Callable[[], Tensor]) -> Tensor:
        """`make()`, or what it gave for the same `size` and unchanged `parameter`."""
        if self.training or torch.compiler.is_compiling() or (torch.is_grad_enabled() and parameter.requires_grad):
            return make()
        # Neither a graph nor an inference tensor: what is kept may later meet a layer that trains.
        with torch.inference_mode(False), torch.no_grad():
            version = None if parameter.is_inference() else parameter._version
            key = (size, parameter.data_ptr(), version, parameter.dtype, parameter.device)
            value = self._kept.pop(key) if key in self._kept else make()
        self._kept[key] = value
        if len(self._kept) > _SIZES_KEPT:
            del self._kept[next(iter(self._kept))]
        return value

    def train(self, mode: bool = True) -> 'SizeCache':
        self._kept.clear()
        return super().train(mode)

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), '_kept': {}}


def resize_table(table: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resizing of a table of offsets, its centre kept in the centre.

    Args:
        table: (..., h, w).
        height: Rows wanted.
        width: Columns wanted.

    Returns:
        (..., height, width); `table` itself when it has that size.
    """
    if table.shape[-2:] == (height, width):
        return table
    flat = table.reshape(1, -1, *table.shape[-2:])
    return F.interpolate(flat, (height, width), mode='bilinear').reshape(*table.shape[:-2], height, width)


def resize_line(table: Tensor, length: int) -> Tensor:
    """Linear resizing of a table of offsets along one axis, its centre kept in the centre.

    Args:
        table: (l, d).
        length: Offsets wanted.

    Returns:
        (length, d); `table` itself when it has that length.
    """
    if table.shape[0] == length:
        return table
    return resize_table(table.t()[:, None], 1, length)[:, 0].t()
