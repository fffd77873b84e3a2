"""BoTNet: bottleneck Transformers for visual recognition (arXiv 2101.11605).

A ResNet whose last stage has global self-attention in place of its 3x3 convolutions. The authors published no weights
and as code a TensorFlow gist of the last stage (aravindsrinivas/56359b79, without a licence). The network here follows
it and torchvision's ResNet (BSD-3-Clause), whose parameter names it carries: `layer4` is the stage with attention.
Files of lucidrains' translation of the gist (MIT, 440fbdc; `bot.net.*`) load as they are where the strided shortcut is
the paper's 1x1 convolution; that package itself ships a 3x3 one, which nearly doubles the network and is not followed.
Deliberate differences from the gist:

- Any image size. Tables of relative positions are kept at the size that they were learned at (`table_size`) and
  resized linearly to the map at hand. Odd maps pool as TensorFlow's SAME padding does, to ceil(H / 2) like the
  shortcut; the translations to PyTorch fail there.
- Attention never holds a matrix of all pairs, see `layers.attention.decomposed_attention`.
- In inference, BatchNorm is part of the convolution before it as it runs; `fuse()` folds it once and for all.
- All scores at once, or within windows (`window_size`), which changes the function and is off unless asked for.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints import KeyLayout
from ..checkpoints.layouts import rename
from ..layers.attention import (
    decomposed_attention,
    relative_logits,
    window_padding,
    window_partition,
    window_unpartition,
)
from ..layers.drop_path import DropPath, linear_rates
from ..layers.folding import conv_norm, fuse_norms
from ..layers.inference import check_foldable, may_read
from ..layers.norm import LayerNorm2d
from ..layers.position import SizeCache, resize_line
from ..layers.sizes import ceil_div
from ..registry import register_backbone
from ._attention_inputs import AttentionInputs, PlaceInWindow, table_size_of
from ._published import shape_in
from ._table_size import as_option, log_resizing, parse_table_size
from .pyramid import PyramidBackbone

# `width` is that of the first stage's 3x3 convolutions, `stride` that of the stage with attention.
ARCHS = {
    '50': dict(depths=(3, 4, 6, 3), width=64, heads=4, stride=2),
    '101': dict(depths=(3, 4, 23, 3), width=64, heads=4, stride=2),
    '152': dict(depths=(3, 8, 36, 3), width=64, heads=4, stride=2),
    's1_50': dict(depths=(3, 4, 6, 3), width=64, heads=4, stride=1),
    's1_101': dict(depths=(3, 4, 23, 3), width=64, heads=4, stride=1),
    's1_152': dict(depths=(3, 8, 36, 3), width=64, heads=4, stride=1),
}


class Attention(nn.Module):
    """In place of a 3x3 convolution: attention with scores `q.(k + r_h[dy] + r_w[dx])`, then an average pool.

    Args:
        dim: Channels in and out.
        stride: Of the pool; 1 for none.
        num_heads: Heads that share the channels, and the two tables.
        table_size: Height and width of the map that the tables are made for.
        window_size: Side of the windows that attend within themselves; None for the whole map.
    """

    def __init__(
        self, dim: int, stride: int, num_heads: int, table_size: tuple[int, int], window_size: int | None
    ) -> None:
        super().__init__()
        self.stride = stride
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.window_size = window_size
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=False)
        height, width = table_size
        self.rel_height = nn.Parameter(torch.empty(2 * height - 1, dim // num_heads))
        self.rel_width = nn.Parameter(torch.empty(2 * width - 1, dim // num_heads))
        self.cache = SizeCache()
        for table in (self.rel_height, self.rel_width):
            nn.init.normal_(table, std=self.scale)

    def _tables(self, size: tuple[int, int]) -> list[Tensor]:
        return [
            self.cache(table, (length,), lambda table=table, length=length: resize_line(table, 2 * length - 1))
            for table, length in zip((self.rel_height, self.rel_width), size, strict=True)
        ]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
        n, _, *size = x.shape
        qkv = self.qkv(x).permute(0, 2, 3, 1)
        window = self.window_size
        if window is None or window >= max(size):
            out = self._attend(qkv, None)
        else:
            out = self._attend(window_partition(qkv, window), window_padding(size, window, n, x.device))
            out = window_unpartition(out, window, tuple(size))
        out = out.permute(0, 3, 1, 2)
        if self.stride == 1:
            return out
        return F.avg_pool2d(out, self.stride, ceil_mode=True, count_include_pad=False)

    def _attend(self, qkv: Tensor, padding: tuple[Tensor, Tensor] | None) -> Tensor:
        """(N, H, W, 3C) to (N, H, W, C); `padding` says which rows and columns no query attends to."""
        n, height, width, _ = qkv.shape
        q, k, v = qkv.reshape(n, height * width, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        # The gist scales before both the content and the position scores.
        q = q * self.scale
        rows, columns = relative_logits(q, (height, width), *self._tables((height, width)))
        if padding is not None:
            rows, columns = rows.masked_fill(padding[0], -1e4), columns.masked_fill(padding[1], -1e4)
        out = decomposed_attention(q, k, v, rows, columns)
        return out.transpose(1, 2).reshape(n, height, width, -1)

    @torch.no_grad()
    def fold(self, norm: nn.BatchNorm2d) -> None:
        """Take over the BatchNorm behind: the weights of both averages sum to one, so it may act on the values."""
        check_foldable(self.qkv, norm)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        shift = norm.bias - norm.running_mean * scale
        self.qkv.weight[-len(scale) :].mul_(scale[:, None, None, None])
        self.qkv.bias = nn.Parameter(torch.cat([shift.new_zeros(2 * len(shift)), shift]))


def _conv_norm_relu(x: Tensor, layer: 'nn.Conv2d | Attention', norm: nn.Module) -> Tensor:
    """`relu(norm(layer(x)))` of (N, H, W, C)."""
    return F.relu(conv_norm(x, layer, norm), inplace=may_read(layer, norm))


def _fuse(layer: 'nn.Conv2d | Attention', norm: nn.Module) -> nn.Identity:
    """Fold BatchNorm into the layer before it; returns what takes the norm's place."""
    if not isinstance(layer, Attention):
        return fuse_norms(layer, norm)
    if not isinstance(norm, nn.Identity):
        layer.fold(norm)
    return nn.Identity().eval()


class Bottleneck(nn.Module):
    """ResNet's block, with the stride in its 3x3 convolution or in the attention that takes its place.

    (N, C, H, W) to (N, 4 * width, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self, in_channels: int, width: int, stride: int, drop_path: float, attention: Attention | None = None
    ) -> None:
        super().__init__()
        channels = 4 * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = attention or nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.drop_path = DropPath(drop_path)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            conv = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            # Only the gist has an activation in the shortcut.
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(channels), *([nn.ReLU()] if attention else []))

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        shortcut = self._shortcut(x)
        y = _conv_norm_relu(x, self.conv1, self.bn1)
        y = _conv_norm_relu(y, self.conv2, self.bn2)
        y = self.drop_path(conv_norm(y, self.conv3, self.bn3))
        y = y.add_(shortcut) if may_read(self.conv3, self.bn3, self.drop_path) else y + shortcut
        return y.relu_().permute(0, 3, 1, 2)

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.downsample is None:
            return x
        conv, norm, *activation = self.downsample
        x = conv_norm(x, conv, norm)
        return activation[0](x) if activation else x

    def fuse(self) -> None:
        """Fold every BatchNorm into the layer before it."""
        for i in '123':
            setattr(self, f'bn{i}', _fuse(getattr(self, f'conv{i}'), getattr(self, f'bn{i}')))
        if self.downsample is not None:
            self.downsample[1] = _fuse(*self.downsample[:2])


class _Head(nn.Module):
    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))


def _textbook_macs(attn: Attention, inputs: tuple[Tensor], _: Any) -> int:
    """Figure 4, as the gist: scores, values, and of every query the products with all 2H - 1 and 2W - 1 relative
    embeddings, of which H and W are used; N^2 2C + N (2H + 2W - 2) C.
    Ours: N^2 2C + N (H + W) C on CPUs; longer vectors elsewhere, N^2 2 (C + heads (H + W)) and padding.
    """
    n, dim, height, width = inputs[0].shape
    qkv, window, n_windows = 3 * height * width * dim**2, attn.window_size, 1
    if window is not None and window < max(height, width):
        n_windows = ceil_div(height, window) * ceil_div(width, window)
        height = width = window
    tokens = height * width
    return n * (qkv + n_windows * tokens * dim * (2 * tokens + 2 * height + 2 * width - 2))


def _attention_inputs(attn: Attention, x: Tensor) -> AttentionInputs:
    maps = attn.qkv(x)[0].permute(1, 2, 0).unflatten(2, (3, attn.num_heads, -1))
    size, window = tuple(maps.shape[:2]), attn.window_size
    # Windows that reach beyond the map have the tables of whole ones.
    sides = table_size_of(size, window)
    tables = attn._tables(sides)

    def bias(query: Tensor, place: PlaceInWindow) -> Tensor:
        of_rows, of_columns = (
            query @ table[torch.arange(length, device=table.device) - at + side - 1].t()
            for table, side, at, length in zip(tables, sides, place[:2], place[2:], strict=True)
        )
        return of_rows[:, :, None] + of_columns[:, None]

    q, k, v = maps.flatten(0, 1).unbind(1)
    return AttentionInputs(q * attn.scale, k, v, size, size, window, bias)


def _stored_table_size(state: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """(H, W) in pixels of the images that the tables of a file are made for; None if it has none that fit here."""
    shapes = [shape_in(state, rf'^(layer4|bot\.net)\.0\..*\.{table}$') for table in ('rel_height', 'rel_width')]
    size = tuple(8 * (shape[0] + 1) for shape in shapes if shape)
    return size if len(size) == 2 and all(side % 16 == 0 for side in size) else None


@register_backbone(
    botnet_50=dict(arch='50'),
    botnet_101=dict(arch='101'),
    botnet_152=dict(arch='152'),
    botnet_s1_50=dict(arch='s1_50'),
    botnet_s1_101=dict(arch='s1_101'),
    botnet_s1_152=dict(arch='s1_152'),
)
class BoTNet(PyramidBackbone):
    """BoTNet as a pyramid of strides 4, 8, 16, 32; of 4, 8, 16, 16 in the S1 variants.

    Args:
        arch: A name in `ARCHS`, or a dict with the same keys.
        out_norm: Off by default, as in detectors on a ResNet.
        table_size: Image size in pixels at which the tables of relative positions are stored: the side of square
            images, or (H, W), in multiples of 16. Tables of a file of another size are resized, as they are for an
            image of another size.
        window_size: Attend within windows of this many pixels of the map, instead of over the whole map: another
            function, cheaper on large images.

    The other options are those of :class:`PyramidBackbone`.

    Raises:
        ValueError: Unknown arch, or options outside the architecture.
    """

    tiny_arch = dict(depths=(1, 1, 1, 2), width=8, heads=2, stride=2)
    magnifies_rounding = True
    textbook_macs = {Attention: _textbook_macs}
    attention_readers = {Attention: _attention_inputs}
    # Position tables of two dimensions.
    no_weight_decay = ('rel_height', 'rel_width')
    # The gist's translation within torchvision's ResNet, as a torch.nn.Sequential, with a layer for queries and keys
    # and another for values.
    checkpoint_layouts = {
        'distribuuuu': KeyLayout(
            marker=r'^7\.net\.\d+\.net\.3\.to_qk\.',
            concatenated=((('to_qk.weight', 'to_v.weight'), 'to_qkv.weight'),),
            renames=(
                (r'^0\.', 'conv1.'),
                (r'^1\.', 'bn1.'),
                (r'^4\.', 'layer1.'),
                (r'^5\.', 'layer2.'),
                (r'^6\.', 'layer3.'),
                (r'^7\.net\.', 'layer4.'),
                (r'^10\.', 'fc.'),
            ),
        )
    }
    # Files of the gist's translation.
    checkpoint_renames = (
        (r'^bot\.net\.', 'layer4.'),
        (r'^(layer4\.\d+)\.shortcut\.', r'\1.downsample.'),
        (r'^(layer4\.\d+)\.net\.0\.', r'\1.conv1.'),
        (r'^(layer4\.\d+)\.net\.1\.', r'\1.bn1.'),
        (r'^(layer4\.\d+)\.net\.3\.to_qkv\.', r'\1.conv2.qkv.'),
        (r'^(layer4\.\d+)\.net\.3\.pos_emb\.', r'\1.conv2.'),
        (r'^(layer4\.\d+)\.net\.5\.', r'\1.bn2.'),
        (r'^(layer4\.\d+)\.net\.7\.', r'\1.conv3.'),
        (r'^(layer4\.\d+)\.net\.8\.', r'\1.bn3.'),
    )

    def __init__(
        self,
        arch: str | dict[str, Any] = '50',
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        out_norm: bool = False,
        table_size: int | Sequence[int] = 224,
        window_size: int | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        depths, width, heads, last_stride = self.parse_arch(arch, ARCHS)
        if window_size is not None and window_size < 1:
            raise ValueError(f'window_size={window_size} of BoTNet: expected None (the whole map) or at least 1')
        self.table_size = parse_table_size('BoTNet', table_size, 16)
        widths = [width * 2**i for i in range(4)]
        strides = (4, 8, 16, 16 * last_stride)
        super().__init__([4 * w for w in widths], strides, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        self.depths = depths[: self.num_stages]
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)

        rates = linear_rates(drop_path_rate, sum(depths))
        in_channels, in_stride = width, 4
        for i in range(self.num_stages):
            blocks = []
            for _ in range(depths[i]):
                stride, attention = strides[i] // in_stride, None
                if i == 3:
                    grid = [(side + in_stride - 1) // in_stride for side in self.table_size]
                    attention = Attention(widths[i], stride, heads, grid, window_size)
                blocks.append(Bottleneck(in_channels, widths[i], stride, next(rates), attention))
                in_channels, in_stride = 4 * widths[i], strides[i]
            self.add_module(f'layer{i + 1}', nn.Sequential(*blocks))
        self._init_trunk()
        self.finish(out_norm, LayerNorm2d)

    def _init_trunk(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
            elif isinstance(module, Bottleneck):
                # Every block starts as its shortcut.
                nn.init.zeros_(module.bn3.weight)

    @staticmethod
    def implied_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        size = _stored_table_size(state)
        return {} if size in (None, (224, 224)) else dict(table_size=as_option(size))

    def convert_checkpoint(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tables that were learned at another size are resized to those of this network."""
        own = {key: value for key, value in self.state_dict().items() if key.endswith(self.no_weight_decay)}
        given = _stored_table_size(state)
        if given in (None, self.table_size) or not own:
            return state
        log_resizing('BoTNet', given, self.table_size)
        names = {key: rename(key, self.checkpoint_renames) for key in state if key.endswith(self.no_weight_decay)}
        tables = {key: resize_line(state[key], len(own[name])) for key, name in names.items() if name in own}
        return {**state, **tables}

    @property
    def min_size(self) -> int:
        return self.out_strides[-1]

    @property
    def checkpoint_ignores(self) -> tuple[str, ...]:
        return (r'fc\.', *(rf'layer{i + 1}\.' for i in range(self.num_stages, 4)))

    def forward_stage(self, x: Tensor, index: int) -> Tensor:
        if index == 0:
            x = _conv_norm_relu(x.permute(0, 2, 3, 1), self.conv1, self.bn1).permute(0, 3, 1, 2)
            x = F.max_pool2d(x, 3, 2, padding=1)
        for block in self._stage(index):
            x = self.run_block(block, x)
        return x

    def _stage(self, index: int) -> nn.Sequential:
        return self.get_submodule(f'layer{index + 1}')

    def fuse(self) -> 'BoTNet':
        self.bn1 = _fuse(self.conv1, self.bn1)
        for index in range(self.num_stages):
            for block in self._stage(index):
                block.fuse()
        return self

    def stage_modules(self, index: int) -> list[nn.Module]:
        return [self.conv1, self.bn1] if index == -1 else [self._stage(index)]

    def build_head(self, num_classes: int) -> nn.Module:
        return _Head(self.out_channels[-1], num_classes)

    def block_of(self, name: str) -> tuple[int, int]:
        kind, block, *_ = name.split('.')
        return (int(kind.removeprefix('layer')) - 1, int(block)) if kind.startswith('layer') else (-1, 0)
