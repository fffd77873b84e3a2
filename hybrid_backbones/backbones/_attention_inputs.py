"""What an attention layer computes with, read from the layer's own input and parameters, as plain tensors.

The networks never hold the matrix of all weights; with these inputs the weights of single queries can be computed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn


class PlaceInWindow(NamedTuple):
    """Row and column of a query within its window, and the window's height and width."""

    row: int
    column: int
    height: int
    width: int


@dataclass
class AttentionInputs:
    """Inputs of the attention of one image; prefix tokens, such as a class token, stand in front of the map's.

    Attributes:
        q: (P + H * W, num_heads, d), scaled queries.
        k: (P + H' * W', num_heads, d), keys.
        v: (P + H' * W', num_heads, d), values.
        size: (H, W) of the map of queries.
        key_size: (H', W') of the map of keys.
        window_size: Side of the windows of the map that its tokens attend within; None for the whole map.
        bias: For a query (num_heads, d) at a place in its window, what is added to its scores, (num_heads, h, w).
        position: Likewise, a second set of weights that the layer mixes with those by content, (num_heads, h, w).
        gate: (num_heads,), share of `position` in the mixture.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    size: tuple[int, int]
    key_size: tuple[int, int]
    window_size: int | None = None
    bias: Callable[[Tensor, PlaceInWindow], Tensor] | None = None
    position: Callable[[PlaceInWindow], Tensor] | None = None
    gate: Tensor | None = None


# (layer, *its arguments) -> its inputs
Reader = Callable[..., AttentionInputs]


def table_size_of(size: tuple[int, int], window_size: int | None) -> tuple[int, int]:
    """(H, W) that tables of positions are resized to: that of whole windows, where the map is larger than one."""
    return size if window_size is None or max(size) <= window_size else (window_size, window_size)


def read_tokens(attn: nn.Module, x: Tensor, size: Sequence[int]) -> AttentionInputs:
    """Of :class:`hybrid_backbones.layers.transformer.Attention`, called with tokens (N, T, C)."""
    q, k, v = attn.qkv(x)[0].unflatten(1, (3, attn.num_heads, -1)).unbind(1)
    return AttentionInputs(q * q.shape[-1] ** -0.5, k, v, tuple(size), tuple(size), attn.window_size)


def with_offset_table(
    q: Tensor, k: Tensor, v: Tensor, window_size: int | None, table_of: Callable[[int, int], Tensor | None]
) -> AttentionInputs:
    """Attention with a bias by offset, see :func:`hybrid_backbones.layers.attention.table_attention`.

    Args:
        q: (H, W, num_heads, d), queries that are not scaled yet.
        k: (H, W, num_heads, d).
        v: (H, W, num_heads, d).
        window_size: As of :class:`AttentionInputs`.
        table_of: Bias (num_heads, 2 * height - 1, 2 * width - 1) for a map of (height, width); None for none.
    """
    size = tuple(q.shape[:2])
    table = table_of(*table_size_of(size, window_size))

    def bias(query: Tensor, place: PlaceInWindow) -> Tensor:
        rows = table.shape[1] // 2 + place.row - torch.arange(place.height, device=table.device)
        columns = table.shape[2] // 2 + place.column - torch.arange(place.width, device=table.device)
        return table[:, rows[:, None], columns].to(query.dtype)

    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    return AttentionInputs(q * q.shape[-1] ** -0.5, k, v, size, size, window_size, bias=None if table is None else bias)
