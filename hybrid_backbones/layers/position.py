"""Position tables and relative position bias, learned on a grid of one size, for maps of any size."""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .inference import state_of

# Multi-scale evaluation meets a handful of sizes again and again; a table of each is small.
_SIZES_KEPT = 8


class SizeCache(nn.Module):
    """Results that depend on a parameter and a map's size alone, kept for the last few sizes in inference.

    Never kept while training, where the parameter changes at every step and its gradient is wanted, nor in a compiled
    graph. Any call of `train()` or `eval()` empties it: averaged weights are swapped in through `.data`, which no
    version counter sees, but not without going to eval mode.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[tuple, Tensor] = {}

    def forward(self, parameter: Tensor, size: tuple[int, ...], make: Callable[[], Tensor]) -> Tensor:
        """`make()`, or its result for the same `size` and unchanged `parameter`."""
        if self.training or torch.compiler.is_compiling() or (torch.is_grad_enabled() and parameter.requires_grad):
            return make()
        # Neither a graph nor an inference tensor: kept results may later be used by a layer that trains.
        with torch.inference_mode(False), torch.no_grad():
            key = size, *state_of(parameter)
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


def _has_size(own: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether there is nothing to resize; never in an exported program, which resizes for every size alike."""
    return not torch.compiler.is_exporting() and tuple(own) == tuple(wanted)


def resize_table(table: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resizing of a table of offsets, its centre kept in the centre.

    Args:
        table: (..., h, w).
        height: Rows wanted.
        width: Columns wanted.

    Returns:
        (..., height, width); `table` itself when it has that size.
    """
    if _has_size(table.shape[-2:], (height, width)):
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
    if _has_size(table.shape[:1], (length,)):
        return table
    return resize_table(table.t()[:, None], 1, length)[:, 0].t()


def square_side(tokens: int) -> int | None:
    """Side of the square grid of so many tokens; None if there is none."""
    side = math.isqrt(max(tokens, 0))
    return side if side**2 == tokens > 0 else None


def resize_positions(
    table: Tensor, grid: tuple[int, int], size: tuple[int, int], prefix_tokens: int = 0, align_corners: bool = False
) -> Tensor:
    """Bicubic resizing of an embedding per token.

    Args:
        table: (1, prefix_tokens + h * w, C).
        grid: (h, w) that it was learned on.
        size: (H, W) of the grid at hand.
        prefix_tokens: Tokens in front that have no place on the grid, and stay as they are.
        align_corners: Whether the outer tokens' centres stay where they are, rather than the grid's edges.

    Returns:
        (1, prefix_tokens + H * W, C); `table` itself when it has that grid.
    """
    if _has_size(grid, size):
        return table
    prefix, places = table[:, :prefix_tokens], table[:, prefix_tokens:]
    places = places.unflatten(1, tuple(grid)).permute(0, 3, 1, 2)
    places = F.interpolate(places, tuple(size), mode='bicubic', align_corners=align_corners)
    return torch.cat([prefix, places.permute(0, 2, 3, 1).flatten(1, 2)], 1)


def _shape_of_bicubic_gradient(
    grad: Tensor,
    size: Sequence[int],
    input_size: Sequence[int],
    align_corners: bool,
    scales_h: float | None = None,
    scales_w: float | None = None,
) -> Tensor:
    """Of antialiased resizing, by which timm's tables of positions learn; compiled for any size, PyTorch 2.14 lacks it.

    Its own kernel takes no symbols for `input_size`, unlike those of bilinear and of plain bicubic resizing.
    """
    return grad.new_empty(input_size)


# PyTorch 2.7 refuses another than its own: there, such a table trains compiled for one size only.
with suppress(RuntimeError):
    torch.library.register_fake('aten::_upsample_bicubic2d_aa_backward', _shape_of_bicubic_gradient)


class RelativeTable(nn.Module):
    """Bias of attention by the offset of key to query, learned on one grid, for a grid of any size.

    Args:
        grid: (h, w) that it is learned on.
        num_heads: Heads of the attention.
    """

    def __init__(self, grid: tuple[int, int], num_heads: int) -> None:
        super().__init__()
        self.grid = grid
        self.relative_position_bias_table = nn.Parameter(torch.empty(math.prod(_offsets(grid)), num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.cache = SizeCache()

    def forward(self, height: int, width: int) -> Tensor:
        """(num_heads, 2 * height - 1, 2 * width - 1)."""
        table = self.relative_position_bias_table
        return self.cache(table, (height, width), lambda: _resize_flat(table, self.grid, (height, width)))

    def fitted(self, table: Tensor, grid: tuple[int, int]) -> Tensor:
        """A parameter that was learned on `grid`, resized to this one's."""
        return _resize_flat(table, grid, self.grid).permute(1, 2, 0).flatten(0, 1)


def _offsets(grid: tuple[int, int]) -> tuple[int, int]:
    """Vertical and horizontal offsets between two positions of a grid."""
    return 2 * grid[0] - 1, 2 * grid[1] - 1


def _resize_flat(table: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """(offsets of `grid`, num_heads) to (num_heads, 2H - 1, 2W - 1) for `size`, (H, W)."""
    return resize_table(table.unflatten(0, _offsets(grid)).permute(2, 0, 1), *_offsets(size))


class RelativeMLP(nn.Module):
    """Bias of attention by the offset of key to query as a function of its logarithms, for a grid of any size.

    Swin V2's log-spaced continuous position bias (arXiv 2111.09883, section 3.3) as timm's `RelPosMlp` has it for
    CoAtNet: offsets in pixels of the map, no limit of the bias; without timm's dropout inside.
    """

    def __init__(self, num_heads: int, hidden: int = 512) -> None:
        super().__init__()
        layers = dict(fc1=nn.Linear(2, hidden), act=nn.ReLU(), fc2=nn.Linear(hidden, num_heads))
        self.mlp = nn.Sequential(OrderedDict(layers))
        for layer in (self.mlp.fc1, self.mlp.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        # Offsets have its type and device: layers may be adapters, whose weights are their own.
        self.register_buffer('origin', torch.zeros(()), persistent=False)

    def forward(self, height: int, width: int) -> Tensor:
        """(num_heads, 2 * height - 1, 2 * width - 1)."""
        lines = [self.origin + torch.arange(1 - side, side, device=self.origin.device) for side in (height, width)]
        offsets = torch.stack(torch.meshgrid(*lines, indexing='ij'), -1)
        return self.mlp(offsets.sign() * offsets.abs().log1p()).permute(2, 0, 1)
