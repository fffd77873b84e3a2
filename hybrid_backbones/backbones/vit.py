"""ViT as DeiT trains it, distilled or not, and with an early convolutional stem, as plain backbones.

- DeiT: training data-efficient image transformers and distillation through attention (arXiv 2012.12877). Official code:
  facebookresearch/deit, `models.py` at 7e160fe, Apache-2.0. Parameters carry its names, which are timm's too; files of
  both load as they are.
- ViT_C: early convolutions help transformers see better (arXiv 2106.14881). Official code: `vision_transformer.py` of
  facebookresearch/ClassyVision at 08a82e8, MIT, whose keys are renamed as a file is loaded.

Deliberate differences from both:

- Any image size: the grid is ceil(H / 16) x ceil(W / 16), and the table of positions, stored for images of `table_size`
  pixels, is resized bicubically to it; corners aligned for ViT_C, as each code does for other image sizes.
- Four levels from one grid (`pyramid`), windows for large images (`window_size`), an output norm per returned map.
- The final norm, which published detectors leave out (ViTDet, XCiT, BEiT), stands with the head (`create_classifier`).
- ViT_C's convolutions start as torch has them and its linear layers as DeiT's; in inference BatchNorm of the stem is
  folded into the convolution before it.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.conv_bn import ConvBN
from ..layers.drop_path import linear_rates
from ..layers.inference import may_read
from ..layers.norm import LayerNorm2d
from ..layers.patch_embed import PatchEmbed
from ..layers.transformer import EPS, Attention, Block
from ..registry import register_backbone
from ._plain import PlainBackbone, block_windows, init_linears, small_normal, square_table

# DeiT's table 1; ViT_C has a block fewer than its ViT, and the stem's 3x3 convolutions as (channels, stride).
_LARGE_STEM = ((64, 2), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2))
ARCHS = {
    'tiny': dict(depth=12, dim=192, heads=3, mlp_ratio=4, stem=()),
    'small': dict(depth=12, dim=384, heads=6, mlp_ratio=4, stem=()),
    'base': dict(depth=12, dim=768, heads=12, mlp_ratio=4, stem=()),
    'c_1gf': dict(depth=11, dim=192, heads=3, mlp_ratio=3, stem=((24, 2), (48, 2), (96, 2), (192, 2))),
    'c_4gf': dict(depth=11, dim=384, heads=6, mlp_ratio=3, stem=((48, 2), (96, 2), (192, 2), (384, 2))),
    'c_18gf': dict(depth=11, dim=768, heads=12, mlp_ratio=4, stem=_LARGE_STEM),
    'c_36gf': dict(depth=13, dim=1024, heads=16, mlp_ratio=4, stem=_LARGE_STEM),
}


class ConvStem(nn.Module):
    """3x3 convolutions with BatchNorm and ReLU, then a linear layer; sizes are rounded up."""

    def __init__(self, layers: Sequence[tuple[int, int]], dim: int) -> None:
        super().__init__()
        channels = (3, *(c for c, _ in layers))
        self.convs = nn.ModuleList(ConvBN(channels[i], c, 3, stride) for i, (c, stride) in enumerate(layers))
        self.strides = [stride for _, stride in layers]
        self.proj = nn.Conv2d(channels[-1], dim, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """(N, 3, H, W) to the grid, and the last map of each finer stride."""
        x, maps, stride = x.permute(0, 2, 3, 1), {}, 1
        for layer, step in zip(self.convs, self.strides, strict=True):
            x = F.relu(layer(x), inplace=may_read(layer))
            stride *= step
            maps[stride] = x.permute(0, 3, 1, 2)
        return self.proj(maps.pop(stride)).permute(0, 2, 3, 1), maps


class _Head(nn.Module):
    def __init__(self, dim: int, num_classes: int, distilled: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.head = nn.Linear(dim, num_classes)
        if distilled:
            self.head_dist = nn.Linear(dim, num_classes)
        init_linears(self)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits of the class token; with a distillation token the mean of both, and in training the two themselves."""
        x = self.norm(x[:, :2])
        logits = self.head(x[:, 0])
        if not hasattr(self, 'head_dist'):
            return logits
        distilled = self.head_dist(x[:, 1])
        return (logits, distilled) if self.training else (logits + distilled) / 2


@register_backbone(
    deit_t=dict(arch='tiny'),
    deit_s=dict(arch='small'),
    deit_b=dict(arch='base'),
    vitc_1gf=dict(arch='c_1gf'),
    vitc_4gf=dict(arch='c_4gf'),
    vitc_18gf=dict(arch='c_18gf'),
    vitc_36gf=dict(arch='c_36gf'),
)
class ViT(PlainBackbone):
    """ViT as a pyramid of strides 4, 8, 16, 32.

    Args:
        arch: A name in `ARCHS`, or a dict with the same keys; `stem=()` is one linear layer per patch.
        distilled: With DeiT's distillation token, as its distilled files have it.
        pyramid: Where the levels come from: `'simple'`, all from the last map, as ViTDet's detectors; `'multi_depth'`,
            each from its quarter of the blocks, as BEiT's segmentors; `'stem'`, finer levels from ViT_C's
            convolutions; None, no pyramid but the maps of single blocks, all of stride 16.
        table_size: Image size in pixels at which the table of positions is stored. Files of another are resized.
        window_size: None, or the side in tokens of the windows that attention stays within, in all blocks but the last
            of each quarter, as ViTDet's (14 there): less work on large images, but another function than the one that
            was pretrained. A grid that one window covers stays whole.
        out_indices: Levels 0 to 3 that are returned, all by default; with `pyramid=None` blocks, by default the last.
        drop_path_rate: Stochastic depth of the last block; grows linearly from 0 over all blocks.
        frozen_stages: -1 nothing, 0 the stem with positions and special tokens, k that and k quarters of the blocks.
        norm_eval: Keep BatchNorm statistics of ViT_C's stem fixed during training.
        with_cp: Recompute blocks in the backward pass.
        out_norm: LayerNorm on every returned map.
        init_cfg: `dict(type='Pretrained', checkpoint=...)` takes the authors' and timm's files.

    Raises:
        ValueError: Unknown arch, or options outside the architecture.
    """

    head_keys = r'(norm|head|head_dist)\.'

    def __init__(
        self,
        arch: str | dict[str, Any] = 'small',
        distilled: bool = False,
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
        depth, dim, heads, mlp_ratio, stem = self.parse_arch(arch, ARCHS)
        finer = _finer_channels(stem)
        super().__init__(depth, dim, pyramid, finer, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        self.align_corners = bool(stem)
        self.distilled = distilled
        self.cls_token = small_normal(1, 1, dim)
        if distilled:
            self.dist_token = small_normal(1, 1, dim)
        self.pos_embed = square_table(table_size, len(self.special_tokens), dim)
        self.patch_embed = ConvStem(stem, dim) if stem else PatchEmbed(dim)
        rates = linear_rates(drop_path_rate, depth)
        windows = block_windows(depth, window_size)[: self.num_blocks]
        self.blocks = nn.ModuleList(
            Block(dim, Attention(dim, heads, window_size=window), mlp_ratio, next(rates)) for window in windows
        )
        init_linears(self)
        self.finish(out_norm, LayerNorm2d)

    @property
    def special_tokens(self) -> tuple[nn.Parameter, ...]:
        return (self.cls_token, self.dist_token) if self.distilled else (self.cls_token,)

    @property
    def checkpoint_renames(self) -> tuple[tuple[str, str], ...]:
        """ClassyVision's names."""
        last = len(self.patch_embed.convs) if isinstance(self.patch_embed, ConvStem) else 0
        return (
            (r'^class_token$', 'cls_token'),
            (r'^encoder\.ln\.', 'norm.'),
            (rf'^conv_proj\.conv_{last}\.', 'patch_embed.proj.'),
            (r'^conv_proj\.(conv|bn)_(\d+)\.', r'patch_embed.convs.\2.\1.'),
            (r'^encoder\.layers\.layer_(\d+)\.', r'blocks.\1.'),
            (r'\.self_attention\.in_proj_', '.attn.qkv.'),
            (r'\.self_attention\.out_proj\.', '.attn.proj.'),
            (r'\.ln_(\d)\.', r'.norm\1.'),
            (r'\.mlp\.linear_(\d)\.', r'.mlp.fc\1.'),
        )

    def convert_checkpoint(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Position tables of another size are resized; ClassyVision's, (T, 1, C), are turned to (1, T, C) first."""
        if 'encoder.pos_embedding' in state:
            state = {**state, 'pos_embed': state['encoder.pos_embedding'].transpose(0, 1)}
            del state['encoder.pos_embedding']
        return super().convert_checkpoint(state)

    def fuse(self) -> 'ViT':
        for module in self.modules():
            if isinstance(module, ConvBN):
                module.fuse()
        return self

    def build_head(self, num_classes: int) -> nn.Module:
        return _Head(self.out_channels[-1], num_classes, self.distilled)


def _finer_channels(stem: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Channels of the stem's last map of each stride below 16.

    Raises:
        ValueError: The strides' product is not 16.
    """
    channels, stride = {}, 1
    for c, step in stem:
        stride *= step
        channels[stride] = c
    if stem and stride != 16:
        raise ValueError(f'a stem of {stem} has stride {stride}; expected 16, as the product of all strides')
    channels.pop(16, None)
    return channels
