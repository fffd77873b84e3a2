"""MogaNet: multi-order gated aggregation network (arXiv 2211.03295).

Official code: Westlake-AI/MogaNet, `models/moganet.py` at 386b548, Apache-2.0. Parameters carry its names and shapes,
so its files load as they are. Kept as there: BatchNorm everywhere, the shortcut of a block's aggregation, which is the
normed input, and the average over the whole map inside it: images of a batch that are padded to a common size see
their padding, as in the authors' detectors. Deliberate differences:

- The BatchNorm behind a stage, which its map and the next stage read, is the only norm of outputs, as in the authors'
  detectors; `out_norm=True` adds LayerNorm as other families have it.
- The head stands apart (`create_classifier`).
- `fuse()` folds BatchNorms into the convolutions beside them, but for those whose output a shortcut reads.

Sizes are rounded up: 150x203 gives 38x51, 19x26, 10x13, 5x7.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.depthwise import Depthwise
from ..layers.drop_path import DropPath, linear_rates
from ..layers.folding import fuse_norms
from ..layers.linear import Pointwise
from ..layers.norm import LayerNorm2d
from ..registry import register_backbone
from .pyramid import PyramidBackbone

# Table A1 of the paper and the official code.
ARCHS = {
    'xtiny': dict(depths=(3, 3, 10, 2), dims=(32, 64, 96, 192), mlp_ratios=(8, 8, 4, 4)),
    'tiny': dict(depths=(3, 3, 12, 2), dims=(32, 64, 128, 256), mlp_ratios=(8, 8, 4, 4)),
    'small': dict(depths=(2, 3, 12, 2), dims=(64, 128, 320, 512), mlp_ratios=(8, 8, 4, 4)),
    'base': dict(depths=(4, 6, 22, 3), dims=(64, 160, 320, 512), mlp_ratios=(8, 8, 4, 4)),
    'large': dict(depths=(4, 6, 44, 4), dims=(64, 160, 320, 640), mlp_ratios=(8, 8, 4, 4)),
    'xlarge': dict(depths=(6, 6, 44, 4), dims=(96, 192, 480, 960), mlp_ratios=(8, 8, 4, 4)),
}


def _depthwise(dim: int, kernel_size: int, dilation: int = 1) -> Depthwise:
    padding = dilation * (kernel_size // 2)
    return Depthwise(dim, dim, kernel_size, padding=padding, dilation=dilation, groups=dim)


class ElementScale(nn.Module):
    """What two maps differ by, added to the first in a share per channel: `x + scale * (x - other)`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1, dim, 1, 1), 1e-5))

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return x + self.scale * (x - other)


class MultiOrderConv(nn.Module):
    """Depthwise convolutions of three reaches, for 1/8, 3/8 and 4/8 of the channels; section 4.2."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dims = dim - 3 * dim // 8 - dim // 2, 3 * dim // 8, dim // 2
        self.DW_conv0 = _depthwise(dim, 5)
        self.DW_conv1 = _depthwise(self.dims[1], 5, dilation=2)
        self.DW_conv2 = _depthwise(self.dims[2], 7, dilation=3)
        self.PW_conv = Pointwise(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        low, middle, high = self.DW_conv0(x).split(self.dims, 1)
        return self.PW_conv(torch.cat([low, self.DW_conv1(middle), self.DW_conv2(high)], 1))


class GatedAggregation(nn.Module):
    """Spatial aggregation, gated; (N, C, H, W)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj_1 = Pointwise(dim, dim, 1)
        self.gate = Pointwise(dim, dim, 1)
        self.value = MultiOrderConv(dim)
        self.proj_2 = Pointwise(dim, dim, 1)
        self.sigma = ElementScale(dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.proj_1(x)
        y = F.silu(self.sigma(y, y.mean((2, 3), keepdim=True)))
        return self.proj_2(F.silu(self.gate(y)) * F.silu(self.value(y))) + x


class ChannelAggregation(nn.Module):
    """Feed-forward layer with a depthwise convolution and what all channels share taken apart; (N, C, H, W)."""

    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        hidden = ratio * dim
        self.fc1 = Pointwise(dim, hidden, 1)
        self.dwconv = _depthwise(hidden, 3)
        self.fc2 = Pointwise(hidden, dim, 1)
        self.decompose = Pointwise(hidden, 1, 1)
        self.sigma = ElementScale(hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.dwconv(self.fc1(x)))
        return self.fc2(self.sigma(x, F.gelu(self.decompose(x))))


class Block(nn.Module):
    """Spatial and channel aggregation, each with a pre-norm and layer scale; (N, C, H, W)."""

    def __init__(self, dim: int, mlp_ratio: int, drop_path: float, layer_scale_init: float) -> None:
        super().__init__()
        self.layer_scale_1 = nn.Parameter(torch.full((1, dim, 1, 1), layer_scale_init))
        self.layer_scale_2 = nn.Parameter(torch.full((1, dim, 1, 1), layer_scale_init))
        self.norm1 = nn.BatchNorm2d(dim)
        self.attn = GatedAggregation(dim)
        self.norm2 = nn.BatchNorm2d(dim)
        self.mlp = ChannelAggregation(dim, mlp_ratio)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.layer_scale_1 * self.attn(self.norm1(x)))
        return x + self.drop_path(self.layer_scale_2 * self.mlp(self.norm2(x)))

    def fuse(self) -> None:
        """Fold the second BatchNorm into the layer behind it; the first is part of the shortcut too."""
        self.norm2 = fuse_norms(self.mlp.fc1, nn.Identity(), self.norm2)


class Downsampling(nn.Module):
    """3x3 convolution of stride 2 and BatchNorm."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(dim, out_dim, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(out_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.projection(x))

    def fuse(self) -> None:
        """Fold the BatchNorm into the convolution before it."""
        self.norm = fuse_norms(self.projection, self.norm)


class Stem(nn.Module):
    """Two such convolutions, with GELU between."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.projection = nn.Sequential(
            nn.Conv2d(3, dim // 2, 3, stride=2, padding=1),
            nn.BatchNorm2d(dim // 2),
            nn.GELU(),
            nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1),
            nn.BatchNorm2d(dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(x)

    def fuse(self) -> None:
        """Fold both BatchNorms into the convolutions before them."""
        for conv in (0, 3):
            self.projection[conv + 1] = fuse_norms(self.projection[conv], self.projection[conv + 1])


class _Head(nn.Module):
    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(dim, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)))


@register_backbone(
    moganet_xt=dict(arch='xtiny'),
    moganet_t=dict(arch='tiny'),
    moganet_s=dict(arch='small'),
    moganet_b=dict(arch='base'),
    moganet_l=dict(arch='large'),
    moganet_xl=dict(arch='xlarge'),
)
class MogaNet(PyramidBackbone):
    """MogaNet as a pyramid of strides 4, 8, 16, 32.

    Args:
        arch: A name in `ARCHS`, or a dict with the same keys.
        out_norm: Off by default: the BatchNorm behind every stage is the authors' norm of outputs.
        layer_scale_init: Initial layer scale; 1e-5 as published, larger learns faster from scratch.

    The other options are those of :class:`PyramidBackbone`.

    Raises:
        ValueError: Unknown arch, or options outside the architecture.
    """

    tiny_arch = dict(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), mlp_ratios=(8, 8, 4, 4))
    # Per channel, but of four dimensions.
    no_weight_decay = ('layer_scale_1', 'layer_scale_2', 'scale')

    def __init__(
        self,
        arch: str | dict[str, Any] = 'tiny',
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        out_norm: bool = False,
        layer_scale_init: float = 1e-5,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        depths, dims, mlp_ratios = self.parse_arch(arch, ARCHS)
        if any(dim % 8 for dim in dims):
            raise ValueError(
                f'MogaNet with dims={tuple(dims)}: expected multiples of 8, the shares of its convolutions'
            )
        super().__init__(dims, (4, 8, 16, 32), out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        self.depths = tuple(depths[: self.num_stages])
        rates = linear_rates(drop_path_rate, sum(depths))
        for i, depth in enumerate(self.depths):
            self.add_module(f'patch_embed{i + 1}', Downsampling(dims[i - 1], dims[i]) if i else Stem(dims[0]))
            blocks = (Block(dims[i], mlp_ratios[i], next(rates), layer_scale_init) for _ in range(depth))
            self.add_module(f'blocks{i + 1}', nn.ModuleList(blocks))
            self.add_module(f'norm{i + 1}', nn.BatchNorm2d(dims[i]))
        self._init_trunk()
        self.finish(out_norm, LayerNorm2d)

    def _init_trunk(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out')
                # He's, by the channels of a group.
                module.weight.data.mul_(module.groups**0.5)
                nn.init.zeros_(module.bias)

    def _stage(self, index: int) -> tuple[nn.Module, nn.ModuleList, nn.BatchNorm2d]:
        return tuple(self.get_submodule(f'{kind}{index + 1}') for kind in ('patch_embed', 'blocks', 'norm'))

    @property
    def min_size(self) -> int:
        return 1  # every size is rounded up

    @property
    def checkpoint_ignores(self) -> tuple[str, ...]:
        unbuilt = (rf'(patch_embed|blocks|norm){i + 1}\.' for i in range(self.num_stages, 4))
        return (r'head\.', *unbuilt)

    def forward_stage(self, x: Tensor, index: int) -> Tensor:
        downsample, blocks, norm = self._stage(index)
        x = downsample(x)
        for block in blocks:
            x = self.run_block(block, x)
        return norm(x)

    @torch.no_grad()
    def fuse(self) -> 'MogaNet':
        for module in self.modules():
            if isinstance(module, Stem | Downsampling | Block):
                module.fuse()
        return self

    def stage_modules(self, index: int) -> list[nn.Module]:
        downsample, blocks, norm = self._stage(max(index, 0))
        if index == -1:
            return [downsample]
        return [blocks, norm] if index == 0 else [downsample, blocks, norm]

    def build_head(self, num_classes: int) -> nn.Module:
        return _Head(self.out_channels[-1], num_classes)

    def block_of(self, name: str) -> tuple[int, int]:
        kind, block, *_ = name.split('.')
        stage = int(kind[-1]) - 1
        if kind.startswith('patch_embed'):
            return (stage, 0) if stage else (-1, 0)
        # The norm behind a stage belongs to its last block.
        return stage, int(block) if kind.startswith('blocks') else self.depths[stage] - 1
