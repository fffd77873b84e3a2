"""CeiT: incorporating convolution designs into visual transformers (arXiv 2103.11816).

Official code: coeusguo/ceit, `ceit_model.py` at 44c16d3, Apache-2.0. Parameters carry its names; its files load as they
are. Deliberate differences:

- Any image size, where the code takes square ones and silently mixes up the rows of a non-square grid of a square
  number of tokens: the grid is ceil(H / 16) x ceil(W / 16), and the table of positions is resized bicubically to it.
- Four levels from one grid (`pyramid`), windows for large images (`window_size`), an output norm per returned map.
- Layer-wise class-token attention with `pos_layer_embed`, and the final norm, which no token of the map passes, stand
  with the head (`create_classifier`).
- The feed-forward layer runs on the channels-last grid as the tokens lie, without turning them over; where its
  BatchNorms have fixed statistics, they are folded into the convolutions before them.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.conv_bn import ConvBN, on_map
from ..layers.depthwise import depthwise
from ..layers.drop_path import DropPath, linear_rates
from ..layers.folding import fold_behind, set_weights
from ..layers.inverted_bottleneck import bands_pay, expand_in_bands
from ..layers.linear import gelu, linear
from ..layers.norm import LayerNorm2d
from ..layers.patch_embed import pad_to_multiple
from ..layers.transformer import EPS, MLP, Attention, add_branch
from ..registry import register_backbone
from ._attention_inputs import read_tokens
from ._plain import PlainBackbone, block_windows, implied_table_size, init_linears, small_normal
from ._textbook import inverted_bottleneck

# Table 2.
ARCHS = {
    'tiny': dict(depth=12, dim=192, heads=3),
    'small': dict(depth=12, dim=384, heads=6),
    'base': dict(depth=12, dim=768, heads=12),
}
STEM_DIM = 64


class ImageToTokens(nn.Module):
    """Convolution, BatchNorm and max-pooling to stride 4, no activation, then a linear layer per patch; section 3.2."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.backbone = ConvBN(3, STEM_DIM, 7, stride=2)
        self.proj = nn.Conv2d(STEM_DIM, dim, 4, stride=4)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """(N, 3, H, W) to the grid, and the map of stride 4."""
        x = self.backbone(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        return self.proj(pad_to_multiple(x, 4)).permute(0, 2, 3, 1), {4: x}


class LeFF(nn.Module):
    """Locally enhanced feed-forward layer, section 3.3; (N, H, W, C) in and out."""

    def __init__(self, dim: int, ratio: int = 4) -> None:
        super().__init__()
        hidden = ratio * dim
        self.conv1 = nn.Conv2d(dim, hidden, 1)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, dim, 1)
        self.bn3 = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        if self.bn1.training:
            x = F.gelu(on_map(self.bn1, linear(x, self.conv1.weight.flatten(1), self.conv1.bias)))
            x = F.gelu(on_map(self.bn2, depthwise(x, self.conv2.weight, self.conv2.bias)))
            return on_map(self.bn3, linear(x, self.conv3.weight.flatten(1), self.conv3.bias))
        (weight1, bias1), (weight2, bias2), (weight3, bias3) = self._folded()
        if bands_pay(x, weight1):
            x = expand_in_bands(x.contiguous(), (weight1.flatten(1), bias1), (weight2, bias2), stride=1)
        else:
            x = gelu(depthwise(gelu(linear(x, weight1.flatten(1), bias1)), weight2, bias2))
        return linear(x, weight3.flatten(1), bias3)

    def _convs(self) -> list[nn.Conv2d]:
        return [self.conv1, self.conv2, self.conv3]

    def _folded(self) -> list[tuple[Tensor, Tensor]]:
        """Weight and bias of the convolutions, with the BatchNorms behind them."""
        if isinstance(self.bn1, nn.Identity):
            return [(conv.weight, conv.bias) for conv in self._convs()]
        norms = self.bn1, self.bn2, self.bn3
        return [fold_behind(conv.weight, conv.bias, norm) for conv, norm in zip(self._convs(), norms, strict=True)]

    def fuse(self) -> None:
        """Fold the BatchNorms into the convolutions before them."""
        for conv, folded in zip(self._convs(), self._folded(), strict=True):
            set_weights(conv, *folded)
        self.bn1 = self.bn2 = self.bn3 = nn.Identity().eval()


class Block(nn.Module):
    """Attention and LeFF, each with a pre-norm; class token and grid (N, 1 + H * W, C). In inference overwritten."""

    def __init__(self, dim: int, heads: int, window_size: int | None, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = Attention(dim, heads, window_size=window_size)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.leff = LeFF(dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = add_branch(x, self.attn(self.norm1(x), size), self.attn.proj, self.drop_path)
        y = self.norm2(x)
        # The class token passes by the convolutions, and is added to itself.
        front, grid = y[:, :1], self.leff(y[:, 1:].unflatten(1, size)).flatten(1, 2)
        if torch.is_grad_enabled() or self.drop_path.training:
            return x + self.drop_path(torch.cat([front, grid], 1))
        x[:, :1] += front
        x[:, 1:] += grid
        return x


class LayerWiseClassAttention(nn.Module):
    """A block whose last token alone asks the tokens (N, T, C) and itself, section 3.4; (N, 1, C) out."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.feedforward = MLP(dim, ratio=4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.attn(self.norm1(x), (1, x.shape[1]))[:, -1:]
        x = x[:, -1:] + self.attn.proj(y)
        return x + self.feedforward.fc2(self.feedforward(self.norm2(x)))


class _Head(nn.Module):
    def __init__(self, depth: int, dim: int, heads: int, num_classes: int) -> None:
        super().__init__()
        self.pos_layer_embed = nn.Parameter(torch.zeros(1, depth, dim))
        self.lca = LayerWiseClassAttention(dim, heads)
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.head = nn.Linear(dim, num_classes)
        init_linears(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.lca(x + self.pos_layer_embed)))[:, 0]


@register_backbone(ceit_t=dict(arch='tiny'), ceit_s=dict(arch='small'), ceit_b=dict(arch='base'))
class CeiT(PlainBackbone):
    """CeiT as a pyramid of strides 4, 8, 16, 32.

    Args:
        arch: A name in `ARCHS`, or a dict with the same keys.

    The other options are those of :class:`PlainBackbone`.

    Raises:
        ValueError: Unknown arch, or options outside the architecture.
    """

    tiny_arch = dict(depth=5, dim=32, heads=2)
    textbook_macs = {LeFF: partial(inverted_bottleneck, expand='conv1', shrink='conv3')}
    attention_readers = {Attention: read_tokens}
    head_keys = r'(norm\.|head\.|lca\.|pos_layer_embed)'

    def __init__(
        self,
        arch: str | dict[str, Any] = 'small',
        pyramid: str | None = 'simple',
        blocks: Sequence[int] | None = None,
        table_size: int | Sequence[int] = 224,
        window_size: int | None = None,
        out_indices: Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        out_norm: bool = True,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        depth, dim, self.heads = self.parse_arch(arch, ARCHS)
        finer = {4: STEM_DIM}
        super().__init__(depth, dim, pyramid, blocks, finer, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        self.i2t = ImageToTokens(dim)
        self.cls_token = small_normal(1, 1, dim)
        self.add_positions(table_size, dim)
        rates = linear_rates(drop_path_rate, depth)
        windows = block_windows(depth, window_size)[: self.num_blocks]
        self.blocks = nn.ModuleList(Block(dim, self.heads, window, next(rates)) for window in windows)
        init_linears(self)
        self.finish(out_norm, LayerNorm2d)

    @staticmethod
    def implied_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        return implied_table_size(state, prefix_tokens=1)

    @property
    def unread_by_head(self) -> tuple[str, ...]:
        # The head reads class tokens, which bypass the convolutions of the last block.
        return (f'blocks.{self.depth - 1}.leff.',)

    @property
    def stem(self) -> nn.Module:
        return self.i2t

    @property
    def prefix_tokens(self) -> tuple[nn.Parameter, ...]:
        return (self.cls_token,)

    def head_features(self, x: Tensor) -> Tensor:
        """The class token after every block, (N, blocks, C)."""
        return torch.cat([tokens[:, :1].clone() for tokens in self.tokens(self.embed(x)[0])], 1)

    def fuse(self) -> 'CeiT':
        for module in self.modules():
            if isinstance(module, ConvBN | LeFF):
                module.fuse()
        return self

    def build_head(self, num_classes: int) -> nn.Module:
        return _Head(self.depth, self.out_channels[-1], self.heads, num_classes)
