"""CeiT: incorporating convolution designs into visual transformers (arXiv 2103.11816).

Official code: coeusguo/ceit, `ceit_model.py` at 44c16d3, Apache-2.0. Parameters carry its names; its files load as they
are. Deliberate differences:

- Any image size, where the code takes square ones and silently mixes up the rows of a non-square grid of a square
  number of tokens: the grid is ceil(H / 16) x ceil(W / 16), and the table of positions is resized bicubically to it.
- Four levels from one grid (`pyramid`), windows for large images (`window_size`), an output norm per returned map.
- Layer-wise class-token attention with `pos_layer_embed`, and the final norm, which no token of the map passes, stand
  with the head (`create_classifier`).
- The feed-forward layer runs on the channels-last grid, which is how tokens lie in memory. In inference its BatchNorms
  are folded into the convolutions before them.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.conv_bn import ConvBN
from ..layers.depthwise import Depthwise
from ..layers.drop_path import DropPath, linear_rates
from ..layers.folding import conv_norm, fuse_norms
from ..layers.inverted_bottleneck import expand_depthwise
from ..layers.linear import Pointwise
from ..layers.norm import LayerNorm2d
from ..layers.patch_embed import pad_to_multiple
from ..layers.transformer import EPS, MLP, Attention
from ..registry import register_backbone
from ._plain import PlainBackbone, block_windows, init_linears, small_normal, square_table

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
        self.conv1 = Pointwise(dim, hidden, 1)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = Depthwise(hidden, hidden, 3, padding=1, groups=hidden)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3 = Pointwise(hidden, dim, 1)
        self.bn3 = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        return conv_norm(expand_depthwise(x, self.conv1, self.bn1, self.conv2, self.bn2), self.conv3, self.bn3)

    def fuse(self) -> None:
        """Fold the BatchNorms into the convolutions before them."""
        for i in '123':
            setattr(self, f'bn{i}', fuse_norms(getattr(self, f'conv{i}'), getattr(self, f'bn{i}')))


class Block(nn.Module):
    """Attention and LeFF, each with a pre-norm; class token and grid (N, 1 + H * W, C)."""

    def __init__(self, dim: int, num_heads: int, window_size: int | None, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = Attention(dim, num_heads, window_size=window_size)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.leff = LeFF(dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        y = self.norm2(x)
        # The class token bypasses the convolutions.
        grid = self.leff(y[:, 1:].unflatten(1, size)).flatten(1, 2)
        return x + self.drop_path(torch.cat([y[:, :1], grid], 1))


class LayerWiseClassAttention(nn.Module):
    """A block whose only query is the last of the tokens (N, T, C), section 3.4; (N, 1, C) out."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.feedforward = MLP(dim, ratio=4)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, -1:] + self.attn(self.norm1(x), (1, x.shape[1]))[:, -1:]
        return x + self.feedforward(self.norm2(x))


class _Head(nn.Module):
    def __init__(self, depth: int, dim: int, num_heads: int, num_classes: int) -> None:
        super().__init__()
        self.pos_layer_embed = nn.Parameter(torch.zeros(1, depth, dim))
        self.lca = LayerWiseClassAttention(dim, num_heads)
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
        pyramid: Where the levels come from: `'simple'`, all from the last map, as ViTDet's detectors; `'multi_depth'`,
            each from its quarter of the blocks, as BEiT's segmentors; `'stem'`, stride 4 from the stem; None, no
            pyramid but the maps of single blocks, all of stride 16.
        table_size: Image size in pixels at which the table of positions is stored. Files of another are resized.
        window_size: None, or the side in tokens of the windows that attention stays within, in all blocks but the last
            of each quarter, as ViTDet's (14 there): less work on large images, but another function than the one that
            was pretrained. A grid that one window covers stays whole.
        out_indices: Levels 0 to 3 that are returned, all by default; with `pyramid=None` blocks, by default the last.
        drop_path_rate: Stochastic depth of the last block; grows linearly from 0 over all blocks.
        frozen_stages: -1 nothing, 0 the stem with positions and class token, k that and k quarters of the blocks.
        norm_eval: Keep BatchNorm statistics fixed during training: they are in every block, and those of two images
            are poor.
        with_cp: Recompute blocks in the backward pass.
        out_norm: LayerNorm on every returned map.
        init_cfg: `dict(type='Pretrained', checkpoint=...)` takes the authors' files.

    Raises:
        ValueError: Unknown arch, or options outside the architecture.
    """

    head_keys = r'(norm\.|head\.|lca\.|pos_layer_embed)'

    def __init__(
        self,
        arch: str | dict[str, Any] = 'small',
        pyramid: str | None = 'simple',
        table_size: int = 224,
        window_size: int | None = None,
        out_indices: Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        out_norm: bool = True,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        depth, dim, self.num_heads = self.parse_arch(arch, ARCHS)
        finer = {4: STEM_DIM}
        super().__init__(depth, dim, pyramid, finer, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        self.i2t = ImageToTokens(dim)
        self.cls_token = small_normal(1, 1, dim)
        self.pos_embed = square_table(table_size, 1, dim)
        rates = linear_rates(drop_path_rate, depth)
        windows = block_windows(depth, window_size)[: self.num_blocks]
        self.blocks = nn.ModuleList(Block(dim, self.num_heads, window, next(rates)) for window in windows)
        init_linears(self)
        self.finish(out_norm, LayerNorm2d)

    @property
    def stem(self) -> nn.Module:
        return self.i2t

    @property
    def special_tokens(self) -> tuple[nn.Parameter, ...]:
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
        return _Head(self.depth, self.out_channels[-1], self.num_heads, num_classes)
