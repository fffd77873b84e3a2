"""CoAtNet: marrying convolution and attention for all data sizes (arXiv 2106.04803).

The authors released no PyTorch code or weights. Parameters carry the names and shapes of timm 1.0.31's
`coatnet_{0..4}_224` (`timm/models/maxxvit.py`, Apache-2.0): what is trained there loads here as it is.
timm differs from the paper, and so does this: average instead of max pooling, the stride of a convolutional block in
its depthwise layer instead of its first, and squeeze-and-excitation of a quarter of the block's output channels.
Deliberate differences from timm:

- Any image size, ceil(H / stride) at every level, where timm accepts one and needs multiples of 32: pooling covers the
  odd last row and column as the strided convolutions do, and tables of relative positions, stored at the size they
  were learned at (`table_size`), are resized bilinearly to the grid at hand, as the paper does for larger images.
- No matrix over all pairs of positions, neither of scores nor of their bias, in inference or training; a compiled
  graph, which is for any size, lays out the bias.
- The layout is an option (`stages`), as in the paper's study; windowed attention too (`window_size`).
- In inference BatchNorms are folded into the convolutions around them as they run; `fuse()` does it once and for all.
- The head stands apart (`create_classifier`); an output norm per returned map (`out_norm`).

timm's `_rw` and `rmlp` models are other networks, with other widths, activations, pooling, and order of layers; the
bias of the latter, a function of the offset for any size, is an option (`table_size=None`).
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.attention import over_windows, table_attention
from ..layers.channels_last import on_map
from ..layers.depthwise import Depthwise
from ..layers.drop_path import DropPath, linear_rates
from ..layers.folding import conv_norm, fuse_norms
from ..layers.inference import may_read
from ..layers.inverted_bottleneck import expand_depthwise
from ..layers.linear import Pointwise, gelu_
from ..layers.norm import LayerNorm2d
from ..layers.position import RelativeMLP, RelativeTable, square_side
from ..layers.residual import add_branch, add_mlp
from ..layers.squeeze_excite import SqueezeExcite
from ..registry import register_backbone
from ._attention_inputs import AttentionInputs, with_offset_table
from ._published import shape_in
from ._table_size import NOT_SQUARE, log_resizing, parse_table_size
from ._textbook import inverted_bottleneck
from .pyramid import PyramidBackbone

# Table 3; dims are those of the stem S0 and of S1 to S4, depths of S1 to S4.
ARCHS = {
    '0': dict(depths=(2, 3, 5, 2), dims=(64, 96, 192, 384, 768)),
    '1': dict(depths=(2, 6, 14, 2), dims=(64, 96, 192, 384, 768)),
    '2': dict(depths=(2, 6, 14, 2), dims=(128, 128, 256, 512, 1024)),
    '3': dict(depths=(2, 6, 14, 2), dims=(192, 192, 384, 768, 1536)),
    '4': dict(depths=(2, 12, 28, 2), dims=(192, 192, 384, 768, 1536)),
}
LAYOUTS = ('CCCC', 'CCCT', 'CCTT', 'CTTT')
HEAD_DIM = 32


def _pool(x: Tensor) -> Tensor:
    # The last row or column of an odd map is averaged over what there is of it.
    return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H, W, C)."""
    return x.permute(0, 2, 3, 1)


def _map(x: Tensor) -> Tensor:
    """(N, H, W, C) as (N, C, H, W), channels_last."""
    return x.permute(0, 3, 1, 2)


class Stem(nn.Module):
    """S0: two 3x3 convolutions, the first with stride 2."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, dim, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(dim)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = _map(conv_norm(_rows(x), self.conv1, self.norm1))
        return self.conv2(gelu_(x) if may_read(self.conv1, self.norm1) else F.gelu(x))

    def fuse(self) -> None:
        """Fold the BatchNorm into the convolution before it."""
        self.norm1 = fuse_norms(self.conv1, self.norm1)


class Shortcut(nn.Module):
    """What a block with stride 2 adds its branch to: the map pooled, and widened if the block widens it."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.expand = Pointwise(dim, out_dim, 1) if dim != out_dim else None

    def forward(self, x: Tensor) -> Tensor:
        x = _pool(x)
        return x if self.expand is None else self.expand(x)


class MBConv(nn.Module):
    """Inverted bottleneck with a pre-norm; (N, C, H, W), channels_last. In inference `x` may be overwritten."""

    def __init__(self, dim: int, out_dim: int, stride: int, drop_path: float, ratio: int = 4) -> None:
        super().__init__()
        hidden = ratio * out_dim
        self.shortcut = Shortcut(dim, out_dim) if stride == 2 else nn.Identity()
        self.pre_norm = nn.BatchNorm2d(dim)
        self.conv1_1x1 = Pointwise(dim, hidden, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(hidden)
        self.conv2_kxk = Depthwise(hidden, hidden, 3, stride=stride, padding=1, groups=hidden, bias=False)
        self.norm2 = nn.BatchNorm2d(hidden)
        self.se = SqueezeExcite(hidden, out_dim // 4)
        self.conv3_1x1 = Pointwise(hidden, out_dim, 1)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = expand_depthwise(_rows(x), self.conv1_1x1, self.norm1, self.conv2_kxk, self.norm2, self.pre_norm)
        y = on_map(self.se, y)
        return _map(add_branch(_rows(self.shortcut(x)), y, self.conv3_1x1, self.drop_path, call=on_map))

    def fuse(self) -> None:
        """Fold the BatchNorms into the convolutions around them."""
        self.norm1 = fuse_norms(self.conv1_1x1, self.norm1, self.pre_norm)
        self.norm2 = fuse_norms(self.conv2_kxk, self.norm2)
        self.pre_norm = nn.Identity().eval()


class Attention(nn.Module):
    """Multi-head attention with a bias by relative position; (N, H, W, C) in and out.

    The block calls `proj`, the last layer, with the residual sum.
    """

    def __init__(self, dim: int, out_dim: int, grid: tuple[int, int] | None, window_size: int | None) -> None:
        super().__init__()
        self.num_heads = out_dim // HEAD_DIM
        self.window_size = window_size
        self.qkv = Pointwise(dim, 3 * out_dim, 1)
        self.rel_pos = RelativeMLP(self.num_heads) if grid is None else RelativeTable(grid, self.num_heads)
        self.proj = Pointwise(out_dim, out_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of all heads, the input of `proj`."""
        qkv = on_map(self.qkv, x)
        window = self.window_size
        if window is None or max(x.shape[1:3]) <= window:
            return self._attend(qkv, self.rel_pos(*x.shape[1:3]))
        table = self.rel_pos(window, window)
        return over_windows(lambda part: self._attend(part, table), qkv, window)

    def _attend(self, qkv: Tensor, table: Tensor) -> Tensor:
        qkv = qkv.unflatten(3, (self.num_heads, 3 * HEAD_DIM)).permute(0, 3, 1, 2, 4)
        return table_attention(*qkv.chunk(3, -1), table.to(qkv.dtype)).permute(0, 2, 3, 1, 4).flatten(3)


class MLP(nn.Module):
    """The two layers of a feed-forward branch."""

    def __init__(self, dim: int, ratio: int = 4) -> None:
        super().__init__()
        self.fc1 = Pointwise(dim, ratio * dim, 1)
        self.fc2 = Pointwise(ratio * dim, dim, 1)


class PooledNorm(nn.Module):
    """LayerNorm, then pooling."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        return _pool(self.norm(x))


class TransformerBlock(nn.Module):
    """Attention and MLP, each with a pre-norm; (N, C, H, W), channels_last. In inference `x` may be overwritten."""

    def __init__(
        self,
        dim: int,
        out_dim: int,
        stride: int,
        drop_path: float,
        grid: tuple[int, int] | None,
        window_size: int | None,
    ) -> None:
        super().__init__()
        self.shortcut = Shortcut(dim, out_dim) if stride == 2 else nn.Identity()
        self.norm1 = PooledNorm(dim) if stride == 2 else LayerNorm2d(dim)
        self.attn = Attention(dim, out_dim, grid, window_size)
        self.norm2 = LayerNorm2d(out_dim)
        self.mlp = MLP(out_dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.attn(_rows(self.norm1(x)))
        x = add_branch(_rows(self.shortcut(x)), y, self.attn.proj, self.drop_path, call=on_map)
        y = _rows(self.norm2(_map(x)))
        return _map(add_mlp(x, y, self.mlp.fc1, self.mlp.fc2, self.drop_path, call=on_map))


class Stage(nn.Module):
    """Blocks of one size, under timm's name for them."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)


class _Head(nn.Module):
    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.head = nn.ModuleDict(
            dict(
                norm=LayerNorm2d(dim),
                pre_logits=nn.ModuleDict(dict(fc=nn.Linear(dim, dim))),
                fc=nn.Linear(dim, num_classes),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.head['norm'](x.mean((2, 3), keepdim=True)).flatten(1)
        return self.head['fc'](self.head['pre_logits']['fc'](x).tanh())


def _attention_inputs(attn: Attention, x: Tensor) -> AttentionInputs:
    qkv = on_map(attn.qkv, x)[0].unflatten(2, (attn.num_heads, -1))
    return with_offset_table(*qkv.chunk(3, -1), attn.window_size, attn.rel_pos)


@register_backbone(**{f'coatnet_{arch}': dict(arch=arch) for arch in ARCHS})
class CoAtNet(PyramidBackbone):
    """CoAtNet as a pyramid of strides 4, 8, 16, 32.

    Args:
        arch: A name in `ARCHS`, or a dict with the same keys.
        stages: Kinds of the four stages, convolutional (C) or Transformer (T): 'CCTT' of the published networks, or
            another of `LAYOUTS`.
        table_size: Image size in pixels at which the tables of relative positions are stored: the side of square
            images, or (H, W), in multiples of 32. Tables of a file of another size are resized, as they are for an
            image of another size. None for a small network of the offset instead of tables, which is of no size: the
            bias of timm's `coatnet_rmlp` networks. No published file of these architectures has it.
        window_size: None, or the side in positions of the windows that attention stays within: less work at large
            images, but another function than the one that was pretrained. A grid that one window covers stays whole.

    The other options are those of :class:`PyramidBackbone`.

    Raises:
        ValueError: Unknown arch, or options outside the architecture.
    """

    tiny_arch = dict(depths=(1, 1, 2, 1), dims=(8, 8, 16, 64, 96))
    no_weight_decay = ('relative_position_bias_table',)
    textbook_macs = {MBConv: partial(inverted_bottleneck, expand='conv1_1x1', shrink='conv3_1x1')}
    attention_readers = {Attention: _attention_inputs}

    def __init__(
        self,
        arch: str | dict[str, Any] = '0',
        stages: str = 'CCTT',
        table_size: int | Sequence[int] | None = 224,
        window_size: int | None = None,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        out_norm: bool = True,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        depths, dims = self.parse_arch(arch, ARCHS)
        if stages not in LAYOUTS:
            raise ValueError(f'stages={stages!r} of CoAtNet; choose one of {", ".join(LAYOUTS)}')
        self.table_size = None if table_size is None else parse_table_size('CoAtNet', table_size, 32)
        if window_size is not None and window_size < 1:
            raise ValueError(f'window_size={window_size} of CoAtNet: expected None or a positive number of positions')
        for kind, dim in zip(stages, dims[1:], strict=True):
            if kind == 'T' and dim % HEAD_DIM:
                raise ValueError(f'CoAtNet with stages={stages!r} attends in {dim} channels: not heads of {HEAD_DIM}')
        strides = (4, 8, 16, 32)
        super().__init__(dims[1:], strides, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        self.depths = depths[: self.num_stages]
        rates = linear_rates(drop_path_rate, sum(depths))
        self.stem = Stem(dims[0])
        self.stages = nn.ModuleList()
        for i, kind in enumerate(stages[: self.num_stages]):
            blocks = []
            for j in range(depths[i]):
                options = (dims[i + min(j, 1)], dims[i + 1], 1 if j else 2, next(rates))
                grid = self.table_size and tuple(side // strides[i] for side in self.table_size)
                blocks.append(MBConv(*options) if kind == 'C' else TransformerBlock(*options, grid, window_size))
            self.stages.append(Stage(blocks))
        self._init_trunk()
        self.finish(out_norm, LayerNorm2d)

    def _init_trunk(self) -> None:
        # timm's: He's by fan-out before and inside convolutional blocks, Glorot's in Transformer blocks.
        attends = {m for b in self.modules() if isinstance(b, TransformerBlock) for m in b.modules()}
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                if module in attends:
                    nn.init.xavier_uniform_(module.weight)
                else:
                    fan_out = module.out_channels * math.prod(module.kernel_size) // module.groups
                    nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @staticmethod
    def implied_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        if shape_in(state, r'\.rel_pos\.mlp\.'):
            return dict(table_size=None)
        shape = shape_in(state, r'^stages\.2\.blocks\.0\.attn\.rel_pos\.relative_position_bias_table$')
        size = 8 * (math.isqrt(shape[0]) + 1) if shape else 224
        return dict(table_size=size) if size != 224 and size % 32 == 0 else {}

    def _tables(self) -> dict[str, RelativeTable]:
        """Tables of relative positions by the name of their parameter."""
        tables = {name: module for name, module in self.named_modules() if isinstance(module, RelativeTable)}
        return {f'{name}.relative_position_bias_table': table for name, table in tables.items()}

    def convert_checkpoint(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tables that were learned on another square grid are resized to those of this network."""
        resized, size = {}, self.table_size
        for key, table in self._tables().items():
            given = state.get(key)
            if given is None or given.ndim != 2 or given.shape[0] == table.relative_position_bias_table.shape[0]:
                continue
            offsets = square_side(given.shape[0])
            if offsets is None or offsets % 2 == 0:
                continue  # see checkpoint_advice
            side = (offsets + 1) // 2
            resized[key] = table.fitted(given, (side, side))
            size = (self.table_size[0] // table.grid[0] * side,) * 2
        if resized:
            log_resizing('CoAtNet', size, self.table_size)
        return {**state, **resized}

    def checkpoint_advice(self, state: dict[str, Tensor]) -> str:
        own = {key: table.relative_position_bias_table for key, table in self._tables().items() if key in state}
        # Of as many heads: of the same arch.
        unfit = any(
            state[key].shape[0] != table.shape[0] and state[key].shape[1:] == table.shape[1:]
            for key, table in own.items()
        )
        return NOT_SQUARE if unfit else super().checkpoint_advice(state)

    @property
    def min_size(self) -> int:
        return self.out_strides[-1]

    @property
    def checkpoint_ignores(self) -> tuple[str, ...]:
        unbuilt = (rf'stages\.{i}\.' for i in range(self.num_stages, 4))
        return (r'head\.', r'.*\.relative_position_index$', *unbuilt)

    def forward_stage(self, x: Tensor, index: int) -> Tensor:
        if index == 0:
            x = self.stem(x)
        for block in self.stages[index].blocks:
            x = self.run_block(block, x)
        return x

    @torch.no_grad()
    def fuse(self) -> 'CoAtNet':
        for module in self.modules():
            if isinstance(module, Stem | MBConv):
                module.fuse()
        return self

    def stage_modules(self, index: int) -> list[nn.Module]:
        return [self.stem if index == -1 else self.stages[index]]

    def build_head(self, num_classes: int) -> nn.Module:
        return _Head(self.out_channels[-1], num_classes)

    def block_of(self, name: str) -> tuple[int, int]:
        if name.startswith('stem.'):
            return -1, 0
        _, stage, _, block, *_ = name.split('.')
        return int(stage), int(block)
