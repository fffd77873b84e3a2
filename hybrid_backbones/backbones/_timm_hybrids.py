"""timm's CoAtNet, BoTNet, HaloNet and LambdaNet on maps of any size, without a matrix of all pairs in memory.

The classes here take the place of timm's in a network that is built: same parameters, same function at the size that
timm builds it for. What timm leaves undefined elsewhere:

- CoAtNet's tables are resized to the map as timm resizes them for a network of that size; the bias that is a function
  of the offset (`rmlp` networks) needs no resizing.
- BoTNet's embeddings of offsets are resized linearly, those of rows to its height and those of columns to its width.
- HaloNet's map is padded to whole blocks with zeros, which is what timm puts around the map as well: keys there have
  their part of the softmax, by the embedding of their offset alone.
- Pooling by two covers an odd last row or column, as strided convolutions beside it do: ceil(H / stride) at any level.

LambdaNet needs no more than the last of these where its positions are a convolution (`r=9`, `r=13`).
"""

from collections.abc import Callable

import torch.nn.functional as F
from timm.layers import RelPosMlp, gen_relative_log_coords
from timm.layers.bottleneck_attn import BottleneckAttn
from timm.layers.halo_attn import HaloAttn
from timm.layers.lambda_layer import LambdaLayer
from timm.models.maxxvit import Attention2d, TransformerBlock2d
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..layers.attention import decomposed_attention, relative_logits, table_attention
from ..layers.crop import leading
from ..layers.position import SizeCache, resize_line
from ..layers.sizes import ceil_div, to_multiple
from ._timm_attention import resize_offsets


class MapAttention(Attention2d):
    """CoAtNet's: over the whole map, with a bias by the offset of query to key."""

    def forward(self, x: Tensor, shared_rel_pos: None = None) -> Tensor:
        """(N, C, H, W) in and out."""
        qkv = self.qkv(x).unflatten(1, (self.num_heads, -1)).permute(0, 1, 3, 4, 2)
        out = table_attention(*qkv.chunk(3, -1), self._table(x.shape[2:]).to(qkv.dtype))
        return self.proj_drop(self.proj(out.permute(0, 1, 4, 2, 3).flatten(1, 2)))

    def _table(self, size: tuple[int, int]) -> Tensor:
        """(heads, 2H - 1, 2W - 1)."""
        position = self.rel_pos
        if isinstance(position, RelPosMlp):
            like = position.rel_coords_log
            offsets = gen_relative_log_coords(size, mode=position.mode, device=like.device, dtype=like.dtype)
            # Hidden units for every offset are several times the map; they are not kept for the backward pass.
            return checkpoint(position.mlp, offsets, use_reentrant=False).permute(2, 0, 1)
        table, grid = position.relative_position_bias_table, [2 * side - 1 for side in position.window_size]
        return self.tables(table, tuple(size), lambda: resize_offsets(table.unflatten(0, grid).permute(2, 0, 1), size))


class MapBottleneckAttention(BottleneckAttn):
    """BoTNet's: over the whole map, with embeddings of vertical and of horizontal offsets."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, D, H, W), or half as high and wide."""
        size = x.shape[2:]
        widths = self.dim_out_qk, self.dim_out_qk, self.dim_out_v
        q, k, v = (
            part.flatten(2).unflatten(1, (self.num_heads, -1)).transpose(2, 3) for part in self.qkv(x).split(widths, 1)
        )
        tables = self.pos_embed.height_rel, self.pos_embed.width_rel
        lines = [resize_line(table, 2 * side - 1) for table, side in zip(tables, size, strict=True)]
        scaled = q * self.scale
        rows, columns = relative_logits(scaled if self.scale_pos_embed else q, size, *lines)
        out = decomposed_attention(scaled, k, v, rows, columns)
        return self.pool(out.transpose(1, 2).flatten(2).transpose(1, 2).unflatten(2, size))


class PaddedHaloAttention(HaloAttn):
    """HaloNet's: from blocks to their surroundings, of a map of any size."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, D, H, W), or half as high and wide."""
        height, width = x.shape[2:]
        padding = 0, to_multiple(width, self.block_size), 0, to_multiple(height, self.block_size)
        out = super().forward(F.pad(x, padding))
        out = leading(out, 2, ceil_div(height, self.block_stride))
        out = leading(out, 3, ceil_div(width, self.block_stride))
        return self.cropped_pool(out)


class PositionConvolution(nn.Conv3d):
    """LambdaNet's, of kernels (r, r, 1), which take the memory format of images as other convolutions do."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> 'PositionConvolution':
        return super()._apply(lambda t: fn(t[..., 0])[..., None] if t.ndim == 5 else fn(t), recurse)


def takes_any_size(network: nn.Module) -> bool:
    """Whether a network of timm is one that :func:`attend_at_any_size` is for, all of it."""
    kinds = TransformerBlock2d, BottleneckAttn, HaloAttn, LambdaLayer
    tied = any(isinstance(m, LambdaLayer) and m.pos_emb is not None for m in network.modules())
    return not tied and any(isinstance(module, kinds) for module in network.modules())


def attend_at_any_size(network: nn.Module) -> None:
    """Give the blocks of a network of timm, if it is one of these hybrids, attention and pooling for any map."""
    if not takes_any_size(network):
        return
    for module in network.modules():
        if isinstance(module, TransformerBlock2d) and module.attn.rel_pos is not None:
            module.attn.__class__ = MapAttention
            module.attn.tables = SizeCache()
        elif isinstance(module, BottleneckAttn):
            module.__class__ = MapBottleneckAttention
        elif isinstance(module, HaloAttn):
            module.__class__ = PaddedHaloAttention
            module.cropped_pool, module.pool = module.pool, nn.Identity()
        elif isinstance(module, LambdaLayer):
            module.conv_lambda.__class__ = PositionConvolution
    for pool in network.modules():
        if isinstance(pool, nn.AvgPool2d) and pool.kernel_size in (2, (2, 2)):
            pool.ceil_mode, pool.count_include_pad = True, False
