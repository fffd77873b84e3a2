"""CvT: introducing convolutions to vision Transformers (arXiv 2103.15808).

Official code: leoxiaobin/CvT, `lib/models/cls_cvt.py` at 46ab3c8, MIT. Parameters carry its names and shapes, so its
files load as they are. Kept as there: attention scaled by the full width instead of the head's, QuickGELU, LayerNorm
eps 1e-5, and the class token of the third stage, which the patches attend to: without it they are another function's.
Deliberate differences:

- The matrix of all query-key pairs is never made: memory is linear in the number of pixels.
- Three stages end at stride 16; `extra_level` adds the stride 32 that most necks and heads expect. The class token
  stays inside; its norm and the classifier stand apart (`create_classifier`); an output norm per returned map.
- In inference, BatchNorm is folded into the depthwise convolution in front of it as it runs.
- `kv_stride` other than 2 is ours, and another function: see :class:`CvT`.

Sizes are the authors': floor((H + 1) / 4) at the first stage, then halves rounded up; 150x203 gives 37x51, 19x26,
10x13, and 5x7 for the extra level.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ..checkpoints import KeyLayout
from ..layers.attention import attention
from ..layers.depthwise import Depthwise
from ..layers.drop_path import DropPath, check_rate
from ..layers.folding import conv_norm, fuse_norms
from ..layers.inference import may_read
from ..layers.linear import product, project
from ..layers.norm import LayerNorm2d
from ..layers.packed import Weights
from ..registry import register_backbone
from ._attention_inputs import AttentionInputs
from .pyramid import PyramidBackbone

# Table 1 and the official experiments/imagenet/cvt.
ARCHS = {
    '13': dict(depths=(1, 2, 10), dims=(64, 192, 384), heads=(1, 3, 6)),
    '21': dict(depths=(1, 4, 16), dims=(64, 192, 384), heads=(1, 3, 6)),
    'w24': dict(depths=(2, 2, 20), dims=(192, 768, 1024), heads=(3, 12, 16)),
}
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
        self.conv = Depthwise(dim, dim, 3, stride, padding=1, groups=dim, bias=False)
        self.bn = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        return conv_norm(x, self.conv, self.bn)

    def fuse(self) -> None:
        """Fold the BatchNorm into the convolution."""
        self.bn = fuse_norms(self.conv, self.bn)


class Attention(nn.Module):
    """Attention with convolutional projections, figure 3; class tokens, in front of the map's, bypass the convolutions.

    Keys and values come at `kv_stride`.
    """

    def __init__(self, dim: int, num_heads: int, kv_stride: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = dim**-0.5
        self.conv_proj_q = ConvProjection(dim, 1)
        self.conv_proj_k = ConvProjection(dim, kv_stride)
        self.conv_proj_v = ConvProjection(dim, kv_stride)
        self.proj_q = nn.Linear(dim, dim)
        self.proj_k = nn.Linear(dim, dim)
        self.proj_v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, T, C) in and out, tokens of a map of `size` with class tokens in front."""
        num_prefix = x.shape[1] - size[0] * size[1]
        grid = x[:, num_prefix:].unflatten(1, size).contiguous()

        def of_heads(conv: ConvProjection, linear: nn.Linear) -> Tensor:
            tokens = conv(grid).flatten(1, 2)
            if num_prefix:
                tokens = torch.cat((x[:, :num_prefix].to(tokens.dtype), tokens), 1)
            return project(linear, tokens).unflatten(2, (self.num_heads, -1)).transpose(1, 2)

        q = of_heads(self.conv_proj_q, self.proj_q)
        k = of_heads(self.conv_proj_k, self.proj_k)
        v = of_heads(self.conv_proj_v, self.proj_v)
        return project(self.proj, attention(q, k, v, self.scale).transpose(1, 2).flatten(2))


def quick_gelu(x: Tensor) -> Tensor:
    """`x * sigmoid(1.702 x)`, which is silu(1.702 x) / 1.702."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _QuickGELU.apply(x)
    return F.silu(x * QUICK_GELU) / QUICK_GELU


class _QuickGELU(Function):
    """The same with a backward pass in which the two factors cancel."""

    @staticmethod
    def forward(ctx, x):
        scaled = x * QUICK_GELU
        ctx.save_for_backward(scaled)
        return F.silu(scaled).div_(QUICK_GELU)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (scaled,) = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad, scaled)


class Mlp(nn.Module):
    """Feed-forward layer with QuickGELU."""

    def __init__(self, dim: int, ratio: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, dim * ratio)
        self.fc2 = nn.Linear(dim * ratio, dim)

    def forward(self, x: Tensor) -> Tensor:
        if may_read(self.fc1, self.fc2):
            return self._infer(x)
        return self.fc2(quick_gelu(self.fc1(x)))

    def _infer(self, x: Tensor) -> Tensor:
        """The two factors of QuickGELU as part of the matrix products on either side of a SiLU."""

        def before(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
            return weight * QUICK_GELU, bias * QUICK_GELU

        def behind(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
            return weight / QUICK_GELU, bias

        hidden = product(x, _changed(self.fc1, before), 'silu')
        return product(hidden, _changed(self.fc2, behind))


def _changed(layer: nn.Linear, change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Weights:
    """What `change` makes of weight and bias of a layer."""
    sources = layer.weight, layer.bias
    return Weights(layer, layer.out_features, sources, lambda: change(*sources), 'changed')


class Block(nn.Module):
    """Attention and feed-forward layer, each with a pre-norm, on tokens (N, T, C)."""

    def __init__(self, dim: int, num_heads: int, kv_stride: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads, kv_stride)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Stage(nn.Module):
    """Embedding and blocks, (N, C, H, W) to a map (N, C', H', W') and its class token (N, C') where there is one."""

    def __init__(self, embed: PatchEmbed, blocks: Sequence[Block], class_token: bool) -> None:
        super().__init__()
        self.patch_embed = embed
        self.blocks = nn.ModuleList(blocks)
        dim = embed.proj.out_channels
        self.cls_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, dim), std=0.02)) if class_token else None

    def forward(self, x: Tensor, run_block: Callable[..., Tensor]) -> tuple[Tensor, Tensor | None]:
        """`run_block` calls a block, see :meth:`CvT.run_block`."""
        x = self.patch_embed(x)
        n, *size, _ = x.shape
        x = x.flatten(1, 2)
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.flatten().to(x.dtype).expand(n, 1, -1), x), 1)
        for block in self.blocks:
            x = run_block(block, x, size=size)
        num_prefix = x.shape[1] - size[0] * size[1]
        grid = x[:, num_prefix:].unflatten(1, size).permute(0, 3, 1, 2)
        return grid.contiguous(memory_format=torch.channels_last), x[:, 0] if num_prefix else None


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


def _attention_inputs(attn: Attention, x: Tensor, size: Sequence[int]) -> AttentionInputs:
    prefix = x.shape[1] - size[0] * size[1]
    grid = x[:, prefix:].unflatten(1, size).contiguous()
    maps = [conv(grid)[0] for conv in (attn.conv_proj_q, attn.conv_proj_k, attn.conv_proj_v)]
    q, k, v = (
        linear(torch.cat([x[0, :prefix], m.flatten(0, 1)])).unflatten(1, (attn.num_heads, -1))
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
    attention_readers = {Attention: _attention_inputs}
    checkpoint_layouts = {
        'transformers': KeyLayout(
            marker=r'^cvt\.encoder\.',
            renames=(
                (r'^cvt\.encoder\.stages\.(\d)\.cls_token$', r'stage\1.cls_token'),
                (r'^cvt\.encoder\.stages\.(\d)\.embedding\.convolution_embeddings\.', r'stage\1.patch_embed.'),
                (r'\.patch_embed\.projection\.', '.patch_embed.proj.'),
                (r'\.patch_embed\.normalization\.', '.patch_embed.norm.'),
                (r'^cvt\.encoder\.stages\.(\d)\.layers\.(\d+)\.', r'stage\1.blocks.\2.'),
                (r'\.attention\.attention\.convolution_projection_([qkv])\w+\.', r'.attn.conv_proj_\1.'),
                (r'\.convolution_projection\.convolution\.', '.conv.'),
                (r'\.convolution_projection\.normalization\.', '.bn.'),
                (r'\.attention\.attention\.projection_([qkv])\w+\.', r'.attn.proj_\1.'),
                (r'\.attention\.output\.dense\.', '.attn.proj.'),
                (r'\.intermediate\.dense\.', '.mlp.fc1.'),
                (r'\.output\.dense\.', '.mlp.fc2.'),
                (r'\.layernorm_before\.', '.norm1.'),
                (r'\.layernorm_after\.', '.norm2.'),
                (r'^layernorm\.', 'norm.'),
                (r'^classifier\.', 'head.'),
            ),
        ),
        'paddle': KeyLayout(
            marker=r'\._variance$',
            renames=((r'\._mean$', '.running_mean'), (r'\._variance$', '.running_var')),
            transposed=True,
        ),
    }
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
        return self.get_submodule(f'stage{index}')(x, self.run_block)

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
