"""MOAT: alternating mobile convolution and attention brings strong vision models (arXiv 2210.01820).

Official code, TensorFlow only: google-research/deeplab2, `model/pixel_encoder/moat.py` at 64bc1c1, Apache-2.0. Its
variables load under their own names, in TensorFlow's layout or in PyTorch's, with the moving statistics that its own
loader leaves behind. As there: BatchNorm eps 1e-3, LayerNorm eps 1e-5, TensorFlow's SAME padding, ceil at odd sizes
(150x203 gives 38x51, 19x26, 10x13, 5x7), attention over the whole map and 3x3 pooling for dense prediction.
Deliberate differences from the code:

- Tables of relative positions are resized to the map of every image, where the code fixes the size when it is built,
  from the tables as they were before loading.
- No matrix over all pairs of positions, neither of scores nor of their bias, in inference or training; a compiled
  graph, which is for any size, lays out the bias.
- Windows (`window_size`) need not divide the map: the last of a row or column are what remains of it.
- Maps are those of the last block of each stage; its dense decoders read their GELU. An output norm per returned map
  instead (`out_norm`), as dense prediction with ConvNeXt and Swin has it.
- In inference BatchNorms are folded into the convolutions around them as they run; `fuse()` does it once and for all.

Images are normalised with ImageNet's mean and deviation for MOAT-0, -1 and tiny-MOAT, to -1 .. 1 (mean = std = 127.5)
for MOAT-2, -3 and -4.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints.tensorflow import convert_variables
from ..layers.attention import attention, over_windows, table_attention
from ..layers.channels_last import on_map
from ..layers.depthwise import Depthwise
from ..layers.drop_path import DropPath, check_rate
from ..layers.folding import conv_norm, fuse_norms
from ..layers.inverted_bottleneck import expand_depthwise
from ..layers.linear import Pointwise, project
from ..layers.norm import LayerNorm2d
from ..layers.position import SizeCache, resize_table
from ..layers.residual import add_branch
from ..layers.squeeze_excite import SqueezeExcite
from ..registry import register_backbone
from ._attention_inputs import AttentionInputs, with_offset_table
from ._published import shape_in
from ._same_padding import SameConv2d, same_average_pool
from ._textbook import attention_pairs, inverted_bottleneck
from .pyramid import PyramidBackbone

# As configured in the official code; the first of dims is the stem's.
ARCHS = {
    '0': dict(depths=(2, 3, 7, 2), dims=(64, 96, 192, 384, 768)),
    '1': dict(depths=(2, 6, 14, 2), dims=(64, 96, 192, 384, 768)),
    '2': dict(depths=(2, 6, 14, 2), dims=(128, 128, 256, 512, 1024)),
    '3': dict(depths=(2, 12, 28, 2), dims=(160, 160, 320, 640, 1280)),
    '4': dict(depths=(2, 12, 28, 2), dims=(256, 256, 512, 1024, 2048)),
    'tiny_0': dict(depths=(2, 3, 7, 2), dims=(32, 32, 64, 128, 256)),
    'tiny_1': dict(depths=(2, 3, 7, 2), dims=(40, 40, 80, 160, 320)),
    'tiny_2': dict(depths=(2, 3, 7, 2), dims=(56, 56, 112, 224, 448)),
    'tiny_3': dict(depths=(2, 3, 7, 2), dims=(80, 80, 160, 320, 640)),
}
# Trained on images from -1 to 1.
UNIT_RANGE = ('2', '3', '4')
HEAD_DIM = 32
# Sides of the maps that the tables at strides 16 and 32 were learned on, whatever size the images had.
TABLE_GRIDS = {2: 14, 3: 7}


def _batch_norm(dim: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(dim, eps=1e-3)  # Keras's default


class Stem(nn.Module):
    """Two 3x3 convolutions, the first with stride 2."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv_0 = SameConv2d(3, dim, 3, stride=2)
        self.norm_0 = _batch_norm(dim)
        self.conv_1 = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = conv_norm(x.permute(0, 2, 3, 1), self.conv_0, self.norm_0).permute(0, 3, 1, 2)
        return self.conv_1(F.gelu(x))

    def fuse(self) -> None:
        """Fold the BatchNorm into the convolution before it."""
        self.norm_0 = fuse_norms(self.conv_0, self.norm_0)


class MBConv(nn.Module):
    """Inverted bottleneck with a norm in front; (N, H, W, C). In inference `x` may be overwritten."""

    def __init__(
        self, dim: int, out_dim: int, stride: int, pool_size: int, drop_path: float, squeeze: bool = True
    ) -> None:
        super().__init__()
        hidden = 4 * out_dim
        self.stride = stride
        self.pool_size = pool_size
        self.shortcut_conv = Pointwise(dim, out_dim, 1) if dim != out_dim else None
        self.pre_norm = _batch_norm(dim)
        self.expand_conv = Pointwise(dim, hidden, 1, bias=False)
        self.expand_norm = _batch_norm(hidden)
        convolution = Depthwise if stride == 1 else SameConv2d
        self.depthwise_conv = convolution(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        self.depthwise_norm = _batch_norm(hidden)
        self.se = SqueezeExcite(hidden, max(1, out_dim // 4)) if squeeze else nn.Identity()
        self.shrink_conv = Pointwise(hidden, out_dim, 1)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = expand_depthwise(
            x,
            self.expand_conv,
            self.expand_norm,
            self.depthwise_conv,
            self.depthwise_norm,
            self.pre_norm,
            [side % 2 if self.stride == 2 else 1 for side in x.shape[1:3]],
        )
        return add_branch(self._shortcut(x), on_map(self.se, y), self.shrink_conv, self.drop_path, call=on_map)

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            x = same_average_pool(x, self.pool_size)
        return x if self.shortcut_conv is None else on_map(self.shortcut_conv, x)

    def fuse(self) -> None:
        """Fold the BatchNorms into the convolutions around them."""
        self.expand_norm = fuse_norms(self.expand_conv, self.expand_norm, self.pre_norm)
        self.depthwise_norm = fuse_norms(self.depthwise_conv, self.depthwise_norm)
        self.pre_norm = nn.Identity().eval()


class Attention(nn.Module):
    """Multi-head attention with a learned bias by relative position; (N, H, W, C) in and out.

    The block calls `o`, the last layer, with the residual sum.
    """

    def __init__(self, dim: int, grid: int, window_size: int | None, position_tables: bool) -> None:
        super().__init__()
        self.num_heads = dim // HEAD_DIM
        self.window_size = window_size
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        table = nn.Parameter(torch.empty(self.num_heads, 2 * grid - 1, 2 * grid - 1)) if position_tables else None
        self.register_parameter('relative_position_embedding', table)
        self.cache = SizeCache()

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of all heads, the input of `o`."""
        window = self.window_size
        if window is None or max(x.shape[1:3]) <= window:
            return self._attend(x, self._table(*x.shape[1:3]))
        table = self._table(window, window)
        return over_windows(lambda part: self._attend(part, table), x, window)

    def _attend(self, x: Tensor, table: Tensor | None) -> Tensor:
        heads = (project(layer, x).unflatten(3, (self.num_heads, HEAD_DIM)) for layer in (self.q, self.k, self.v))
        q, k, v = (t.permute(0, 3, 1, 2, 4) for t in heads)
        if table is None:
            out = attention(*(t.flatten(2, 3) for t in (q, k, v))).unflatten(2, q.shape[2:4])
        else:
            out = table_attention(q, k, v, table.to(q.dtype))
        return out.permute(0, 2, 3, 1, 4).flatten(3)

    def _table(self, height: int, width: int) -> Tensor | None:
        """Bias by offset on a map of that size, (heads, 2 * height - 1, 2 * width - 1)."""
        table = self.relative_position_embedding
        if table is None:
            return None
        # The authors' offsets are those of the key seen from the query, table_attention's the other way round.
        sides = 2 * height - 1, 2 * width - 1
        return self.cache(table, sides, lambda: resize_table(table, *sides).flip(1, 2))


class MOATBlock(MBConv):
    """Inverted bottleneck without squeeze-and-excitation in place of an MLP, then attention; (N, H, W, C)."""

    def __init__(
        self,
        dim: int,
        out_dim: int,
        stride: int,
        pool_size: int,
        drop_path: float,
        grid: int,
        window_size: int | None,
        position_tables: bool,
    ) -> None:
        super().__init__(dim, out_dim, stride, pool_size, drop_path, squeeze=False)
        self.attention_norm = nn.LayerNorm(out_dim, eps=1e-5)
        self.attention = Attention(out_dim, grid, window_size, position_tables)

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return add_branch(x, self.attention(self.attention_norm(x)), self.attention.o, self.drop_path)


class _Head(nn.Module):
    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.final_layer_norm = LayerNorm2d(dim, eps=1e-5)
        self.logits_head = nn.Conv2d(dim, num_classes, 1)
        nn.init.normal_(self.logits_head.weight, std=0.02)
        nn.init.zeros_(self.logits_head.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits_head(self.final_layer_norm(x.mean((2, 3), keepdim=True))).flatten(1)


_mbconv_macs = partial(inverted_bottleneck, expand='expand_conv', shrink='shrink_conv')


def _moat_block_macs(block: MOATBlock, inputs: tuple[Tensor], output: Tensor) -> int:
    """Four projections and attention behind the convolutions."""
    n, height, width, dim = output.shape
    pairs = attention_pairs((height, width), block.attention.window_size)
    return _mbconv_macs(block, inputs, output) + n * (4 * height * width * dim**2 + 2 * pairs * dim)


def _attention_inputs(attn: Attention, x: Tensor) -> AttentionInputs:
    q, k, v = (layer(x[0]).unflatten(2, (attn.num_heads, -1)) for layer in (attn.q, attn.k, attn.v))
    return with_offset_table(q, k, v, attn.window_size, attn._table)


@register_backbone(**{f'moat_{arch}'.replace('moat_tiny', 'tiny_moat'): dict(arch=arch) for arch in ARCHS})
class MOAT(PyramidBackbone):
    """MOAT as a pyramid of strides 4, 8, 16, 32.

    Args:
        arch: A name in `ARCHS`, or a dict with the same keys.
        pool_size: Kernel of the average pooling in shortcuts: 3 for dense prediction, 2 for classification.
        window_size: None, or the sides in positions of the windows that attention at strides 16 and 32 stays within,
            (14, 7) where the authors use windows: less work at large images. Maps that a window covers stay whole.
        position_tables: False for the authors' networks without relative positions (`no_pe`).
        bn_momentum: Share of a batch in BatchNorm's running statistics. The authors' (0.99 to Keras) is for long
            schedules: after 150 iterations from random weights a fifth of the statistics is still the initial one, and
            a network that has learned predicts nothing. Short schedules want 0.1.
        drop_path_rate: Stochastic depth, growing linearly from 0 in the first block to this after the last; the
            authors' is 0.2, 0.3, 0.3, 0.6, 0.7 for MOAT-0 to -4 and 0, 0, 0, 0.1 for tiny-MOAT.

    The other options are those of :class:`PyramidBackbone`.

    Raises:
        ValueError: Unknown arch, or options outside the architecture.
    """

    tiny_arch = dict(depths=(1, 1, 2, 1), dims=(8, 8, 16, 32, 64))
    no_weight_decay = ('relative_position_embedding',)
    textbook_macs = {MBConv: _mbconv_macs, MOATBlock: _moat_block_macs}
    attention_readers = {Attention: _attention_inputs}
    classifier_options = dict(out_norm=False, pool_size=2)
    # moat/block_02_00/depthwise_conv/depthwise_kernel -> stages.2.0.depthwise_conv.weight
    checkpoint_renames = (
        (r'^moat/', ''),
        (r'^block_0(\d)_0?(\d+)/', r'stages/\1/\2/'),
        (r'/se/reduce_conv2d/', '/se/fc1/'),
        (r'/se/expand_conv2d/', '/se/fc2/'),
        (r'/(?:(?:depthwise_)?kernel|gamma)$', '.weight'),
        (r'/beta$', '.bias'),
        (r'/moving_mean$', '.running_mean'),
        (r'/moving_variance$', '.running_var'),
        (r'/', '.'),
    )

    def __init__(
        self,
        arch: str | dict[str, Any] = '0',
        pool_size: int = 3,
        window_size: Sequence[int] | None = None,
        position_tables: bool = True,
        bn_momentum: float = 0.01,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        out_norm: bool = True,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        depths, dims = self.parse_arch(arch, ARCHS)
        if pool_size not in (2, 3):
            raise ValueError(f'pool_size={pool_size} of MOAT: expected 2 or 3')
        if window_size is not None and (len(window_size) != 2 or min(window_size) < 1):
            raise ValueError(f'window_size={window_size} of MOAT: expected None or two positive numbers of positions')
        if not 0 < bn_momentum <= 1:
            raise ValueError(f'bn_momentum={bn_momentum} of MOAT: expected more than 0 and at most 1')
        super().__init__(dims[1:], (4, 8, 16, 32), out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        if arch in UNIT_RANGE:
            self.image_mean = self.image_std = (127.5, 127.5, 127.5)
        self.depths = depths[: self.num_stages]
        check_rate(drop_path_rate)
        windows = dict(zip(TABLE_GRIDS, window_size or (None, None), strict=True))
        self.stem = Stem(dims[0])
        self.stages = nn.ModuleList()
        for i, depth in enumerate(self.depths):
            blocks = []
            for j in range(depth):
                drop_path = drop_path_rate * (sum(depths[:i]) + j) / sum(depths)
                options = (dims[i + min(j, 1)], dims[i + 1], 1 if j else 2, pool_size, drop_path)
                attends = i in TABLE_GRIDS
                blocks.append(
                    MOATBlock(*options, TABLE_GRIDS[i], windows[i], position_tables) if attends else MBConv(*options)
                )
            self.stages.append(nn.Sequential(*blocks))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = bn_momentum
        self._init_trunk()
        self.finish(out_norm, LayerNorm2d)

    def _init_trunk(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith('bias'):
                nn.init.zeros_(parameter)

    @staticmethod
    def convert_checkpoint(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return convert_variables(state, 'moat/')

    @staticmethod
    def implied_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        return {} if shape_in(state, 'relative_position_embedding') else dict(position_tables=False)

    @property
    def min_size(self) -> int:
        return self.out_strides[-1]

    @property
    def checkpoint_ignores(self) -> tuple[str, ...]:
        unbuilt = (rf'stages\.{i}\.' for i in range(self.num_stages, 4))
        return (r'(final_layer_norm|logits_head)\.', *unbuilt)

    def forward_stage(self, x: Tensor, index: int) -> Tensor:
        if index == 0:
            x = self.stem(x)
        x = x.permute(0, 2, 3, 1).contiguous()
        for block in self.stages[index]:
            x = self.run_block(block, x)
        return x.permute(0, 3, 1, 2)

    @torch.no_grad()
    def fuse(self) -> 'MOAT':
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
        _, stage, block, *_ = name.split('.')
        return int(stage), int(block)
