"""CvT: introducing convolutions to vision Transformers (arXiv 2103.15808).

Official code: leoxiaobin/CvT, `lib/models/cls_cvt.py` at 46ab3c8, MIT. Parameters carry its names and shapes, so its
files load as they are. Kept as there: attention scaled by the full width instead of the head's, QuickGELU, LayerNorm
eps 1e-5, and the class token of the third stage, which the patches attend to: without it they are another function's.
Deliberate differences:

- The matrix of all query-key pairs is never made: memory is linear in the number of pixels.
- Three stages end at stride 16; `extra_level` adds the stride 32 that most necks and heads expect. The class token
  stays inside; its norm and the classifier stand apart (`create_classifier`); an output norm per returned map.
- BatchNorm with fixed statistics (inference, `norm_eval`, frozen stages) is folded into the depthwise convolution in
  front of it as it runs.
- `kv_stride` other than 2 is ours, and another function: see :class:`CvT`.

Sizes are the authors': floor((H + 1) / 4) at the first stage, then halves rounded up; 150x203 gives 37x51, 19x26,
10x13, and 5x7 for the extra level.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..layers.attention import attention
from ..layers.depthwise import depthwise
from ..layers.drop_path import DropPath, check_rate
from ..layers.linear import add_linear
from ..layers.norm import LayerNorm2d
from ..registry import register_backbone
from ._attention_inputs import AttentionInputs
from .pyramid import PyramidBackbone

# Table 1 and the official experiments/imagenet/cvt.
ARCHS = {
    '13': dict(depths=(1, 2, 10), dims=(64, 192, 384), heads=(1, 3, 6)),
    '21': dict(depths=(1, 4, 16), dims=(64, 192, 384), heads=(1, 3, 6)),
    'w24': dict(depths=(2, 2, 20), dims=(192, 768, 1024), heads=(3, 12, 16)),
}
# x * sigmoid(1.702 x) is silu(1.702 x) / 1.702.
QUICK_GELU = 1.702


class PatchEmbed(nn.Module):
    """Convolutional token embedding, (N, C, H, W) to a map (N, H', W', C')."""

    def __init__(self, in_dim: int, dim: int, kernel_size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_dim, dim, kernel_size, stride, padding)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class ConvProjection(nn.Module):
    """Depthwise 3x3 convolution and BatchNorm in front of a linear projection; maps are (N, H, W, C)."""

    def __init__(self, dim: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(dim, dim, 3, stride, padding=1, groups=dim, bias=False)
        self.bn = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        bn, bias = self.bn, self.conv.bias
        # The views give the gradient the strides of the parameter, which DistributedDataParallel compares.
        weight = self.conv.weight.flatten(1)
        if bn is not None and bn.training:
            x = depthwise(x, weight.view_as(self.conv.weight).to(x.dtype), stride=self.stride)
            return bn(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        if bn is not None:
            scale = bn.weight * (bn.running_var + bn.eps).rsqrt()
            weight, bias = weight * scale[:, None], bn.bias - bn.running_mean * scale
        return depthwise(x, weight.view_as(self.conv.weight).to(x.dtype), bias.to(x.dtype), self.stride)

    def fuse(self) -> None:
        """Fold the BatchNorm into the convolution for good."""
        conv, bn = self.conv, self.bn
        if bn is not None:
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
            )
            self.bn = None


class Attention(nn.Module):
    """Attention with convolutional projections, figure 3; class tokens, in front of the map's, bypass the convolutions.

    Keys and values come at `kv_stride`.
    """

    def __init__(self, dim: int, heads: int, kv_stride: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = dim**-0.5
        self.conv_proj_q = ConvProjection(dim, 1)
        self.conv_proj_k = ConvProjection(dim, kv_stride)
        self.conv_proj_v = ConvProjection(dim, kv_stride)
        self.proj_q = nn.Linear(dim, dim)
        self.proj_k = nn.Linear(dim, dim)
        self.proj_v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def attend(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """All but the last projection, for tokens (N, T, C) of a map of `size` with class tokens in front."""
        classes = x.shape[1] - size[0] * size[1]
        grid = x[:, classes:].unflatten(1, size).contiguous()

        def project(conv: ConvProjection, linear: nn.Linear) -> Tensor:
            tokens = conv(grid).flatten(1, 2)
            if classes:
                tokens = torch.cat((x[:, :classes].to(tokens.dtype), tokens), 1)
            return linear(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)

        q = project(self.conv_proj_q, self.proj_q)
        k = project(self.conv_proj_k, self.proj_k)
        v = project(self.conv_proj_v, self.proj_v)
        return attention(q, k, v, self.scale).transpose(1, 2).flatten(2)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.proj(self.attend(x, size))

    def add_to(self, x: Tensor, normed: Tensor, size: tuple[int, int]) -> None:
        """`x += forward(normed, size)` without gradients: fresh buffers cost a CPU more than the sums in them."""
        add_linear(x, self.attend(normed, size), self.proj.weight, self.proj.bias)


class Mlp(nn.Module):
    """Feed-forward layer with QuickGELU, its two factors moved into the matrix products on either side of a SiLU."""

    def __init__(self, dim: int, ratio: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, dim * ratio)
        self.fc2 = nn.Linear(dim * ratio, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(F.linear(x, self.fc1.weight * QUICK_GELU, self.fc1.bias * QUICK_GELU))
        return F.linear(x, self.fc2.weight / QUICK_GELU, self.fc2.bias)

    def add_to(self, x: Tensor, normed: Tensor) -> None:
        """`x += forward(normed)` without gradients."""
        hidden = torch.addmm(
            self.fc1.bias, normed.flatten(0, 1), self.fc1.weight.t(), beta=QUICK_GELU, alpha=QUICK_GELU
        )
        add_linear(x, F.silu(hidden, inplace=True), self.fc2.weight, self.fc2.bias, 1 / QUICK_GELU)


class Block(nn.Module):
    """Two residual branches on tokens (N, T, C). In inference `x` is overwritten."""

    def __init__(self, dim: int, heads: int, kv_stride: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads, kv_stride)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        if self.training or torch.is_grad_enabled():
            x = x + self.drop_path(self.attn(self.norm1(x), size))
            return x + self.drop_path(self.mlp(self.norm2(x)))
        self.attn.add_to(x, self.norm1(x), size)
        self.mlp.add_to(x, self.norm2(x))
        return x


class Stage(nn.Module):
    """Embedding and blocks; run by :class:`CvT`."""

    def __init__(self, embed: PatchEmbed, blocks: Sequence[Block], class_token: bool) -> None:
        super().__init__()
        self.patch_embed = embed
        self.blocks = nn.ModuleList(blocks)
        dim = embed.proj.out_channels
        self.cls_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, dim), std=0.02)) if class_token else None


class _Head(nn.Module):
    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x))


def _extra_level(kind: str, dim: int) -> nn.Module:
    if kind == 'conv':
        return nn.Conv2d(dim, dim, 3, stride=2, padding=1)
    return nn.MaxPool2d(3, stride=2, padding=1)


def _attention_inputs(block: Block, x: Tensor, size: Sequence[int]) -> AttentionInputs:
    # Of the block: in inference it adds attention to its input without calling it as a module.
    attn, x = block.attn, block.norm1(x)
    prefix = x.shape[1] - size[0] * size[1]
    grid = x[:, prefix:].unflatten(1, size).contiguous()
    maps = [conv(grid)[0] for conv in (attn.conv_proj_q, attn.conv_proj_k, attn.conv_proj_v)]
    q, k, v = (
        linear(torch.cat([x[0, :prefix], m.flatten(0, 1)])).unflatten(1, (attn.heads, -1))
        for linear, m in zip((attn.proj_q, attn.proj_k, attn.proj_v), maps, strict=True)
    )
    return AttentionInputs(q * attn.scale, k, v, tuple(size), tuple(maps[1].shape[:2]))


@register_backbone(
    cvt_13=dict(arch='13'),
    cvt_21=dict(arch='21'),
    cvt_w24=dict(arch='w24'),
)
class CvT(PyramidBackbone):
    """CvT as a pyramid of strides 4, 8, 16, and 32 by an extra level.

    Args:
        arch: A name in `ARCHS`, or a dict with the same keys.
        drop_path_rate: Stochastic depth of the last block; grows linearly from 0 inside the third stage, and is 0
            before it, as the authors have it.
        extra_level: Level 3 of stride 32 from the last map: `'conv'`, a 3x3 convolution of stride 2 that starts
            untrained; `'pool'`, a 3x3 max-pooling without parameters; None for the three levels of the stages only.
        kv_stride: Stride of keys and values. 2 as published; 4 does a quarter of the attention's work at every stage,
            but is another function with the same parameters, which published weights have to be fine-tuned to.

    The other options are those of :class:`PyramidBackbone`.

    Raises:
        ValueError: Unknown arch, or options outside the architecture.
    """

    tiny_arch = dict(depths=(1, 1, 2), dims=(8, 16, 24), heads=(1, 2, 3))
    attention_readers = {Block: _attention_inputs}
    no_weight_decay = ('cls_token',)
    dense_only_prefixes = ('out_norms.', 'extra_level.')
    classifier_options = dict(out_norm=False, extra_level=None)

    def __init__(
        self,
        arch: str | dict[str, Any] = '13',
        out_indices: Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        out_norm: bool = True,
        extra_level: str | None = 'conv',
        kv_stride: int = 2,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        depths, dims, heads = self.parse_arch(arch, ARCHS)
        if extra_level not in ('conv', 'pool', None):
            raise ValueError(f"extra_level={extra_level!r} of CvT: expected 'conv', 'pool' or None")
        if kv_stride < 1:
            raise ValueError(f'kv_stride={kv_stride} of CvT: expected 1 or more; published weights have 2')
        check_rate(drop_path_rate)
        channels = dims if extra_level is None else (*dims, dims[-1])
        out_indices = range(len(channels)) if out_indices is None else out_indices
        super().__init__(channels, (4, 8, 16, 32), out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        for i, depth in enumerate(depths[: self.num_stages]):
            embed = PatchEmbed(dims[i - 1], dims[i], 3, 2, 1) if i else PatchEmbed(3, dims[0], 7, 4, 2)
            rate = drop_path_rate / max(1, depth - 1) if i == 2 else 0.0
            blocks = [Block(dims[i], heads[i], kv_stride, rate * j) for j in range(depth)]
            self.add_module(f'stage{i}', Stage(embed, blocks, class_token=i == 2))
        if self.num_stages == 4:
            self.extra_level = _extra_level(extra_level, dims[-1])
            # A convolution counts as one block more.
            depths = (*depths, int(extra_level == 'conv'))
        self.depths = depths[: self.num_stages]
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.finish(out_norm, LayerNorm2d)

    @property
    def unread_by_head(self) -> tuple[str, ...]:
        # The head reads the class token, which bypasses the convolutions of the last block.
        return (f'stage2.blocks.{self.depths[2] - 1}.attn.conv_proj_q.',)

    @property
    def min_size(self) -> int:
        # The first embedding's 7x7 kernel with a padding of 2; later sizes are rounded up.
        return 3

    @property
    def checkpoint_ignores(self) -> tuple[str, ...]:
        unbuilt = (rf'stage{i}\.' for i in range(self.num_stages, 3))
        return (r'(norm|head)\.', *unbuilt)

    def forward_stage(self, x: Tensor, index: int) -> Tensor:
        return self.extra_level(x) if index == 3 else self._run_stage(x, index)[0]

    def head_features(self, x: Tensor) -> Tensor:
        """The class token, (N, C)."""
        self._check_input(x)
        for index in range(2):
            x = self.forward_stage(x.contiguous(memory_format=torch.channels_last), index)
        return self._run_stage(x, 2)[1]

    def _run_stage(self, x: Tensor, index: int) -> tuple[Tensor, Tensor | None]:
        """Map (N, C, H, W) of a stage, and its class token (N, C) where it has one."""
        stage = getattr(self, f'stage{index}')
        x = stage.patch_embed(x)
        n, *size, _ = x.shape
        x = x.flatten(1, 2)
        if stage.cls_token is not None:
            x = torch.cat((stage.cls_token.flatten().to(x.dtype).expand(n, 1, -1), x), 1)
        for block in stage.blocks:
            x = self.run_block(partial(block, size=size), x)
        classes = x.shape[1] - size[0] * size[1]
        grid = x[:, classes:].unflatten(1, size).permute(0, 3, 1, 2)
        return grid.contiguous(memory_format=torch.channels_last), x[:, 0] if classes else None

    def fuse(self) -> 'CvT':
        for module in self.modules():
            if isinstance(module, ConvProjection):
                module.fuse()
        return self

    def stage_modules(self, index: int) -> list[nn.Module]:
        if index == 3:
            return [self.extra_level]
        stage = getattr(self, f'stage{max(index, 0)}')
        return [stage.patch_embed] if index == -1 else [stage]

    def build_head(self, num_classes: int) -> nn.Module:
        return _Head(self.out_channels[-1], num_classes)

    def block_of(self, name: str) -> tuple[int, int]:
        kind, part, block, *_ = [*name.split('.'), '']
        if kind == 'extra_level':
            return 3, 0
        if name.startswith('stage0.patch_embed.'):
            return -1, 0
        return int(kind.removeprefix('stage')), int(block) if part == 'blocks' else 0
