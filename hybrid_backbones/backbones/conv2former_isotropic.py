"""Isotropic Conv2Former, one grid of stride 16 from stem to head (arXiv 2211.11943, table 9).

Published as a description only: 18 blocks, 22 M and 86 M parameters with the classifier. Assumed here, until the
authors say otherwise:

- blocks, initialisation and head are those of the hierarchical networks, kernel of 11 included (`conv2former.py`);
- the stem is one linear layer per patch of 16x16 pixels, as in isotropic ConvNeXt (arXiv 2201.03545, section 3.3);
- widths are the multiples of eight whose parameters round to the paper's: 312 (22.2 M) and 640 (85.7 M).
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..layers.drop_path import linear_rates
from ..layers.norm import LayerNorm2d
from ..layers.patch_embed import PatchEmbed
from ..registry import register_backbone
from ._convnext_layout import init_layers
from ._plain import PlainBackbone
from .conv2former import Block, Head

ARCHS = {
    'small': dict(depth=18, dim=312, kernel_size=11),
    'base': dict(depth=18, dim=640, kernel_size=11),
}


class GridBlock(Block):
    """Conv2Former's block on the tokens (N, H * W, C) of a grid."""

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return super().forward(x.unflatten(1, size)).flatten(1, 2)


@register_backbone(conv2former_is=dict(arch='small'), conv2former_ib=dict(arch='base'))
class IsotropicConv2Former(PlainBackbone):
    """Isotropic Conv2Former as a pyramid of strides 4, 8, 16, 32.

    Args:
        arch: A name in `ARCHS`, or a dict with the same keys.
        layer_scale_init: Initial layer scale; 1e-6 as published, larger (0.1 to 1) learns faster from scratch.

    The other options are those of :class:`PlainBackbone`; there are no positions and no windows.

    Raises:
        ValueError: Unknown arch, or options outside the architecture.
    """

    tiny_arch = dict(depth=5, dim=32, kernel_size=5)
    head_keys = r'(head|pred)\.'

    def __init__(
        self,
        arch: str | dict[str, Any] = 'small',
        pyramid: str | None = 'simple',
        blocks: Sequence[int] | None = None,
        out_indices: Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        out_norm: bool = True,
        layer_scale_init: float = 1e-6,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        depth, dim, kernel_size = self.parse_arch(arch, ARCHS)
        super().__init__(depth, dim, pyramid, blocks, {}, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        self.patch_embed = PatchEmbed(dim)
        rates = linear_rates(drop_path_rate, depth)
        self.blocks = nn.ModuleList(
            GridBlock(dim, kernel_size, next(rates), layer_scale_init) for _ in range(self.num_blocks)
        )
        init_layers(self)
        self.finish(out_norm, LayerNorm2d)

    def first_tokens(self, grid: Tensor) -> Tensor:
        return grid.contiguous().flatten(1, 2)

    def head_features(self, x: Tensor) -> Tensor:
        """The last block's map, (N, C, H / 16, W / 16)."""
        return self.maps(x)[-1]

    def fuse(self) -> 'IsotropicConv2Former':
        for block in self.blocks:
            block.fuse()
        return self

    def build_head(self, num_classes: int) -> nn.Module:
        return Head(self.out_channels[-1], num_classes)
