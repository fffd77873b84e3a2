"""ConViT: improving vision transformers with soft convolutional inductive biases (arXiv 2103.10697).

Official code: facebookresearch/convit, `convit.py` at 0a9340a, Apache-2.0 by its licence file (headers say CC-BY-NC).
Parameters carry its names, which are timm's too; files of both load as they are. Deliberate differences:

- Any image size, where the code takes square ones: non-square grids of a square number of tokens are silently wrong
  there, as is a second grid of as many tokens as the first. The table of positions, which the paper says could go, is
  resized bicubically; relative positions are of no size.
- No matrix over all pairs of tokens. A head's position scores are a dx + b dy + c (dx^2 + dy^2) + d, so that their
  softmax is the product of one over the rows and one over the columns, applied one after the other. Both softmaxes that
  the gate mixes sum to one, and so does the mixture: the code's renormalisation is left out.
- Four levels from one grid (`pyramid`), windows for large images (`window_size`), an output norm per returned map.
- The final norm stands with the head (`create_classifier`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.attention import attention, over_windows
from ..layers.drop_path import linear_rates
from ..layers.linear import project
from ..layers.norm import LayerNorm2d
from ..layers.patch_embed import PatchEmbed
from ..layers.transformer import EPS, Attention, Block
from ..registry import register_backbone
from ._attention_inputs import AttentionInputs, PlaceInWindow, read_tokens
from ._plain import (
    PlainBackbone,
    block_windows,
    expand_token,
    implied_table_size,
    init_linears,
    small_normal,
)
from ._textbook import attention_pairs

# Table 1; the first `local` blocks have gated positional attention. "plus" has 64 channels a head instead of 48.
ARCHS = {
    'tiny': dict(depth=12, dim=192, heads=4, local=10),
    'small': dict(depth=12, dim=432, heads=9, local=10),
    'base': dict(depth=12, dim=768, heads=16, local=10),
    'tiny_plus': dict(depth=12, dim=256, heads=4, local=10),
    'small_plus': dict(depth=12, dim=576, heads=9, local=10),
    'base_plus': dict(depth=12, dim=1024, heads=16, local=10),
}


def position_attention(v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Attention with weights that are a product of one for the row and one for the column of the key.

    Args:
        v: (N, H, W, heads, d), values.
        rows: (heads, H, H), weights of every row for the queries of a row.
        columns: (heads, W, W).

    Returns:
        (N, H, W, heads, d).
    """
    return torch.einsum('hyk,nkxhd->nyxhd', rows, torch.einsum('hxl,nklhd->nkxhd', columns, v))


class PositionScores(nn.Linear):
    """Scores of the heads from (dx, dy, dx^2 + dy^2), the offset of the key from the query in tokens."""

    def forward(self, offsets: Tensor) -> Tensor:
        """(..., 3) to (..., num_heads), in the dtype of `offsets`, whose squares are too large for half precision."""
        # Not a matrix product, which autocast would take to half precision.
        return (offsets[..., None, :] * self.weight).sum(-1) + self.bias


class GatedPositionalAttention(nn.Module):
    """Gated positional self-attention (GPSA), equations 7 and 8; (N, H * W, C) in and out.

    Args:
        locality_strength: How narrow the neighbourhoods are that the heads start with.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int | None, locality_strength: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.qk = nn.Linear(dim, 2 * dim, bias=False)
        self.v = nn.Linear(dim, dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.pos_proj = PositionScores(3, num_heads)
        self.gating_param = nn.Parameter(torch.ones(num_heads))
        self.locality_strength = locality_strength

    @torch.no_grad()
    def init_local(self) -> None:
        """Start as a convolution: each head attends to one place of a square kernel, section 3."""
        nn.init.eye_(self.v.weight)
        side = math.isqrt(self.num_heads)
        for head in range(self.num_heads):
            across, down = (2 * (place - (side - 1) / 2) for place in divmod(head, side))
            self.pos_proj.weight[head] = self.locality_strength * torch.tensor([across, down, -1.0])

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        qk, v = project(self.qk, x).unflatten(1, size), project(self.v, x).unflatten(1, size)
        if self.window_size is None or max(size) <= self.window_size:
            out = self._attend(qk, v)
        else:
            widths = qk.shape[3], v.shape[3]
            qkv = torch.cat([qk, v], 3)
            out = over_windows(lambda part: self._attend(*part.split(widths, 3)), qkv, self.window_size)
        return project(self.proj, out.flatten(1, 2))

    def _attend(self, qk: Tensor, v: Tensor) -> Tensor:
        """Queries and keys side by side (N, H, W, 2C), and values (N, H, W, C), to (N, H, W, C)."""
        size = v.shape[1:3]
        q, k = qk.unflatten(3, (2, self.num_heads, -1)).unbind(3)
        v = v.unflatten(3, (self.num_heads, -1))
        content = attention(*(t.flatten(1, 2).transpose(1, 2) for t in (q, k, v))).transpose(1, 2).unflatten(1, size)
        position = position_attention(v, *(t.to(v.dtype) for t in self._weights(*size)))
        return content.lerp(position, self.gating_param.sigmoid().to(v.dtype)[:, None]).flatten(3)

    def _weights(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Weights of rows (num_heads, H, H) and of columns (num_heads, W, W).

        The scores of a row are those of the offset (0, dy), of a column those of (dx, 0). Their sum has the bias twice,
        which is the same for all keys and changes nothing.
        """
        down, across = (_offsets(length, self.gating_param) for length in (height, width))
        rows = self.pos_proj(torch.stack([torch.zeros_like(down), down, down.square()], -1))
        columns = self.pos_proj(torch.stack([across, torch.zeros_like(across), across.square()], -1))
        return rows.permute(2, 0, 1).softmax(-1), columns.permute(2, 0, 1).softmax(-1)


def _offsets(length: int, like: Tensor) -> Tensor:
    """Offset of key j from query i at [i, j], (length, length), in fp32 at least."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    places = torch.arange(length, device=like.device, dtype=dtype)
    return places - places[:, None]


class _Head(nn.Module):
    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.head = nn.Linear(dim, num_classes)
        init_linears(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x[:, 0]))


def _textbook_macs(attn: GatedPositionalAttention, inputs: tuple[Tensor, tuple[int, int]], _: Any) -> int:
    """Equations 7 and 8, as the authors' `GPSA`: `pos_proj` of three numbers of every pair, and one product of the
    mixed weights of all pairs with the values; N^2 (2C + 3 heads). Ours: N^2 2C + N (H + W) C.
    """
    x, size = inputs
    n, tokens, dim = x.shape
    pairs = attention_pairs(size, attn.window_size)
    return n * (4 * tokens * dim**2 + pairs * (2 * dim + 3 * attn.num_heads))


def _attention_inputs(attn: GatedPositionalAttention, x: Tensor, size: Sequence[int]) -> AttentionInputs:
    qkv = torch.cat([attn.qk(x[0]), attn.v(x[0])], 1)
    q, k, v = qkv.unflatten(1, (3, attn.num_heads, -1)).unbind(1)

    def position(place: PlaceInWindow) -> Tensor:
        rows, columns = attn._weights(place.height, place.width)
        return (rows[:, place.row, :, None] * columns[:, place.column, None]).to(q.dtype)

    gate, size = attn.gating_param.sigmoid().to(q.dtype), tuple(size)
    return AttentionInputs(q * q.shape[-1] ** -0.5, k, v, size, size, attn.window_size, position=position, gate=gate)


@register_backbone(
    convit_t=dict(arch='tiny'),
    convit_s=dict(arch='small'),
    convit_b=dict(arch='base'),
    convit_t_plus=dict(arch='tiny_plus'),
    convit_s_plus=dict(arch='small_plus'),
    convit_b_plus=dict(arch='base_plus'),
)
class ConViT(PlainBackbone):
    """ConViT as a pyramid of strides 4, 8, 16, 32. The class token joins behind the blocks of positional attention.

    Args:
        arch: A name in `ARCHS`, or a dict with the same keys.
        locality_strength: Of the initialisation; 1 as published.

    The other options are those of :class:`PlainBackbone`.

    Raises:
        ValueError: Unknown arch, or options outside the architecture.
    """

    tiny_arch = dict(depth=5, dim=32, heads=4, local=4)
    textbook_macs = {GatedPositionalAttention: _textbook_macs}
    attention_readers = {GatedPositionalAttention: _attention_inputs, Attention: read_tokens}

    def __init__(
        self,
        arch: str | dict[str, Any] = 'small',
        pyramid: str | None = 'simple',
        blocks: Sequence[int] | None = None,
        table_size: int | Sequence[int] = 224,
        window_size: int | None = None,
        locality_strength: float = 1.0,
        out_indices: Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        out_norm: bool = True,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        depth, dim, heads, local = self.parse_arch(arch, ARCHS)
        if math.isqrt(heads) ** 2 != heads:
            raise ValueError(f'ConViT with {heads} heads: expected a square number, the places of a square kernel')
        super().__init__(depth, dim, pyramid, blocks, {}, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        self.local = local
        if self.num_blocks > self.local:
            self.cls_token = small_normal(1, 1, dim)
        self.add_positions(table_size, dim)
        self.patch_embed = PatchEmbed(dim)
        self.blocks = nn.ModuleList()
        rates = linear_rates(drop_path_rate, depth)
        for block, window in enumerate(block_windows(depth, window_size)[: self.num_blocks]):
            if block < self.local:
                attn = GatedPositionalAttention(dim, heads, window, locality_strength)
            else:
                attn = Attention(dim, heads, qkv_bias=False, window_size=window)
            self.blocks.append(Block(dim, attn, mlp_ratio=4, drop_path=next(rates)))
        init_linears(self)
        for block in self.blocks[: self.local]:
            block.attn.init_local()
        self.finish(out_norm, LayerNorm2d)

    @staticmethod
    def implied_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        return implied_table_size(state, prefix_tokens=0)

    @property
    def head_keys(self) -> str:
        return r'(norm|head)\.' if self.num_blocks > self.local else r'(norm\.|head\.|cls_token)'

    def run(self, index: int, x: Tensor, size: tuple[int, int]) -> Tensor:
        if index == self.local:
            x = torch.cat([expand_token(self.cls_token, x), x], 1)
        return super().run(index, x, size)

    def build_head(self, num_classes: int) -> nn.Module:
        return _Head(self.out_channels[-1], num_classes)
