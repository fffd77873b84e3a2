"""Attention of timm's plain ViTs on a grid of any size: windows, and relative positions without a matrix of all pairs.

The classes here take the place of timm's in a network that is built: same parameters, same function on the grid that
timm builds it for. timm's blocks hand an argument through to their attention, `attn_mask` or `shared_rel_pos_bias`, in
which the size of the grid travels (`SIZE_ARGUMENTS`): nothing is kept from one forward pass to the next.
"""

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from timm.layers import Attention, AttentionRope, apply_rot_embed_cat
from timm.models import beit, eva, vision_transformer_sam
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..layers.attention import attention, decomposed_attention, over_windows, relative_logits
from ..layers.position import SizeCache, resize_line

# Queries whose bias is in memory at a time: torch's CPU kernel works in blocks of 256 from here on.
_PART = 768


class GridAttention:
    """Attention on the tokens of a grid behind prefix tokens; goes before one of timm's classes.

    Prefix tokens are seen from every window and see all of them, so that one window as large as the grid changes
    nothing. Rotary positions are those of the grid, not of the window.
    """

    # None, or the side of the windows in tokens.
    side: int | None

    def forward(
        self,
        x: Tensor,
        rope: Tensor | None = None,
        attn_mask: tuple[int, int] | None = None,
        is_causal: bool = False,
        shared_rel_pos_bias: tuple[int, int] | None = None,
    ) -> Tensor:
        """(N, T, C) in and out; `attn_mask` or `shared_rel_pos_bias` is the grid's (H, W)."""
        size = attn_mask or shared_rel_pos_bias
        qkv = self._project(x, rope, x.shape[1] - size[0] * size[1])
        whole = self.side is None or max(size) <= self.side
        out = self._attend_to_all(qkv, size) if whole else self._attend_in_windows(qkv, size)
        out = self.norm(out) if hasattr(self, 'norm') else out
        if getattr(self, 'gate', None) is not None:
            out = out * self.gate(x).sigmoid()
        return self.proj_drop(self.proj(out))

    def _project(self, x: Tensor, rope: Tensor | None, prefix: int) -> Tensor:
        """Queries, keys and values side by side, (N, T, 3C)."""
        if self.qkv is None:
            qkv = torch.cat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], -1)
        else:
            qkv = self.qkv(x)
        if getattr(self, 'q_bias', None) is not None:
            qkv = qkv + torch.cat([self.q_bias, self.k_bias, self.v_bias])
        q, k, v = qkv.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if hasattr(self, 'q_norm'):
            q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            q, k = (self._rotate(t, rope, prefix) for t in (q, k))
        return torch.stack([t.type_as(v).transpose(1, 2) for t in (q, k, v)], 2).flatten(2)

    def _rotate(self, x: Tensor, rope: Tensor, prefix: int) -> Tensor:
        rotated = apply_rot_embed_cat(x[:, :, prefix:], rope, half=getattr(self, 'rotate_half', False))
        return torch.cat([x[:, :, :prefix], rotated], 2)

    def _attend_to_all(self, qkv: Tensor, size: tuple[int, int]) -> Tensor:
        return self._attend(qkv, qkv)

    def _attend_in_windows(self, qkv: Tensor, size: tuple[int, int]) -> Tensor:
        prefix = qkv.shape[1] - size[0] * size[1]
        front, grid = qkv[:, :prefix], qkv[:, prefix:].unflatten(1, size)

        def attend(part: Tensor) -> Tensor:
            """(M, h, w, 3C), windows of the grid, to (M, h, w, C)."""
            windows, size = part.flatten(1, 2), part.shape[1:3]
            seen = torch.cat([front.repeat_interleave(part.shape[0] // front.shape[0], 0), windows], 1)
            return self._attend(windows, seen, self._bias_of_window(size)).unflatten(1, size)

        out = over_windows(attend, grid, self.side).flatten(1, 2)
        return torch.cat([self._attend(front, qkv, self._bias_of_prefix(qkv.shape[1])), out], 1) if prefix else out

    def _attend(self, of_queries: Tensor, of_keys: Tensor, bias: Tensor | None = None) -> Tensor:
        """(N, T, 3C), (N, S, 3C) and a bias (heads, T, S) to (N, T, C)."""
        q = of_queries.unflatten(2, (3, self.num_heads, -1))[:, :, 0].transpose(1, 2)
        k, v = of_keys.unflatten(2, (3, self.num_heads, -1))[:, :, 1:].permute(2, 0, 3, 1, 4)
        if bias is None:
            return attention(q, k, v).transpose(1, 2).flatten(2)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return out.transpose(1, 2).flatten(2)

    def _bias_of_window(self, size: tuple[int, int]) -> Tensor | None:
        """Of the tokens of a window to the prefix and to themselves, (heads, h * w, prefix + h * w)."""

    def _bias_of_prefix(self, tokens: int) -> Tensor | None:
        """Of the prefix to all tokens, (heads, prefix, tokens)."""


class GridAttentionViT(GridAttention, Attention):
    """ViT's."""


class GridAttentionRope(GridAttention, AttentionRope):
    """Of ViTs with rotary positions."""


class GridAttentionEva(GridAttention, eva.EvaAttention):
    """EVA's and DINOv3's."""


class GridAttentionBeit(GridAttention, beit.Attention):
    """BEiT's: a learned bias by the offset of query to key, and three by which of them is the class token.

    The table of offsets is resized to the grid, or to the window, as timm resizes it for a network of that size.
    """

    def _attend_to_all(self, qkv: Tensor, size: tuple[int, int]) -> Tensor:
        table = self._table(size)
        front = self._attend(qkv[:, :1], qkv, self._bias_of_prefix(qkv.shape[1]))
        rows = max(1, _PART // size[1])
        out = [front]
        for start in range(0, size[0], rows):
            stop = min(start + rows, size[0])
            part = qkv[:, 1 + start * size[1] : 1 + stop * size[1]]
            if torch.is_grad_enabled() and rows < size[0]:
                out.append(checkpoint(self._attend_rows, part, qkv, table, start, size, use_reentrant=False))
            else:
                out.append(self._attend_rows(part, qkv, table, start, size))
        return torch.cat(out, 1)

    def _attend_rows(self, part: Tensor, qkv: Tensor, table: Tensor, start: int, size: tuple[int, int]) -> Tensor:
        """Of the queries of some rows of the grid, from `start` on."""
        return self._attend(part, qkv, self._bias(table, start, part.shape[1] // size[1], size))

    def _bias(self, table: Tensor, start: int, rows: int, size: tuple[int, int]) -> Tensor:
        """From the middle of `table`, (heads, 2H' - 1, 2W' - 1), to (heads, rows * W, 1 + H * W)."""
        top, left = (side // 2 for side in table.shape[1:])
        y, x = (torch.arange(side, device=table.device) for side in size)
        dy = y[start : start + rows, None] - y + top
        dx = x[:, None] - x + left
        offsets = table[:, dy[:, None, :, None], dx[None, :, None, :]].flatten(3).flatten(1, 2)
        to_prefix = self.relative_position_bias_table[-2, :, None, None].expand(-1, offsets.shape[1], 1)
        return torch.cat([to_prefix, offsets], 2)

    def _bias_of_window(self, size: tuple[int, int]) -> Tensor:
        return self._bias(self._table((self.side, self.side)), 0, size[0], size)

    def _bias_of_prefix(self, tokens: int) -> Tensor:
        to_grid, _, to_itself = self.relative_position_bias_table[-3:]
        return torch.cat([to_itself[:, None], to_grid[:, None].expand(-1, tokens - 1)], 1)[:, None]

    def _table(self, size: tuple[int, int]) -> Tensor:
        """(heads, 2H - 1, 2W - 1)."""
        return self.tables(self.relative_position_bias_table, tuple(size), lambda: self._resize_table(size))

    def _resize_table(self, size: tuple[int, int]) -> Tensor:
        old = [2 * side - 1 for side in self.window_size]
        return resize_offsets(self.relative_position_bias_table[:-3].unflatten(0, old).permute(2, 0, 1), size)


def resize_offsets(table: Tensor, size: Sequence[int]) -> Tensor:
    """A table of offsets, resized as timm resizes it for a network of another size.

    Args:
        table: (heads, 2h - 1, 2w - 1), of a grid of (h, w).
        size: (H, W) of the grid at hand.

    Returns:
        (heads, 2H - 1, 2W - 1); `table` itself when it has that size.
    """
    old, new = table.shape[1:], tuple(2 * side - 1 for side in size)
    if not torch.compiler.is_exporting() and tuple(old) == new:
        return table
    weights = _resizing if torch.compiler.is_compiling() else _kept_resizing
    rows, columns = (weights(*lengths).to(table) for lengths in zip(old, new, strict=True))
    return rows[None] @ table @ columns.t()[None]  # as many axes as OpenVINO wants


def _resizing(source: int, target: int) -> Tensor:
    """Weights (target, source) of linear interpolation between offsets at geometrically growing distances (BEiT's).

    The ratio is the one with which `source` offsets reach as far as `target` offsets at distance one, at least 1.01.
    """
    offsets = torch.arange(target, dtype=torch.float64) - target // 2
    if source == 1:
        return torch.ones_like(offsets)[:, None]
    # Halved as often as it takes to the millionth that BEiT stops at, by tensors: compiled, a target is a symbol.
    low, step, powers = torch.full_like(offsets[:1], 1.01), 0.49, torch.arange(source // 2)
    for _ in range(19):
        step /= 2
        ratio = low + step
        low = torch.where((ratio**powers).sum() > offsets[-1], low, ratio)
    distances = (ratio**powers).cumsum(0)
    places = torch.cat([-distances.flip(0), torch.zeros_like(low), distances])
    # Not `searchsorted`, which ONNX does not have.
    right = (places[:, None] <= offsets).sum(0).clamp(1, source - 1)
    share = ((offsets - places[right - 1]) / (places[right] - places[right - 1])).clamp(0, 1)[:, None]
    columns = torch.arange(source)
    return torch.where(columns == right[:, None], share, torch.where(columns == right[:, None] - 1, 1 - share, 0.0))


_kept_resizing = cache(_resizing)


class DecomposedAttention(vision_transformer_sam.Attention):
    """SAM's attention over the whole grid, with a bias per row and per column of the keys, in linear memory."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) in and out."""
        size = x.shape[1:3]
        q, k, v = self.qkv(x).flatten(1, 2).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        # The tables run from the last key to the first.
        lines = [
            resize_line(table, 2 * side - 1).flip(0)
            for table, side in zip((self.rel_pos_h, self.rel_pos_w), size, strict=True)
        ]
        rows, columns = relative_logits(q, size, *lines)
        out = decomposed_attention(q * self.scale, k, v, rows, columns)
        return self.proj_drop(self.proj(out.transpose(1, 2).flatten(2).unflatten(1, size)))


CLASSES = {
    Attention: GridAttentionViT,
    AttentionRope: GridAttentionRope,
    eva.EvaAttention: GridAttentionEva,
    beit.Attention: GridAttentionBeit,
}


def attend_on_grid(block: nn.Module, window_size: int | None) -> str | None:
    """Give a block of timm, where it needs one, an attention for grids of any size.

    Args:
        block: Of ViT, EVA, BEiT or SAM.
        window_size: None, or the side in tokens of the windows that attention stays within.

    Returns:
        The argument of the block that takes the grid's size; None if it takes none.

    Raises:
        ValueError: Windows in a block that cannot have them.
    """
    attn = getattr(block, 'attn', None)
    if type(attn) is vision_transformer_sam.Attention and window_size is None:
        if attn.use_rel_pos and not block.window_size:
            attn.__class__ = DecomposedAttention
        return None
    positions = getattr(attn, 'relative_position_bias_table', None)
    if window_size is None and positions is None:
        return None
    if type(attn) not in CLASSES or getattr(attn, 'num_kv_groups', 1) > 1:
        raise ValueError(
            f'window_size={window_size}: no windows for blocks of {type(block).__module__} with '
            f'{type(attn).__name__}; leave it None'
        )
    attn.__class__ = CLASSES[type(attn)]
    attn.side = window_size
    if positions is not None:
        attn.tables = SizeCache()
    return 'shared_rel_pos_bias' if isinstance(attn, beit.Attention) else 'attn_mask'
