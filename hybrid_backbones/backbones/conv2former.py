"""Conv2Former: a simple Transformer-style ConvNet for visual recognition (arXiv 2211.11943).

Official code: HVision-NKU/Conv2Former, `models/conv2former.py` at 94fd1c4, Apache-2.0. Parameters carry its names and
shapes, so its files load as they are. It differs from the paper in a GELU before the depthwise convolution of the
attention (the paper's A = DConv(W1 X) has none) and in layer scale, fixed at 1e-6; both are kept. Deliberate
differences from the code:

- The head stands apart (`create_classifier`); an output norm per returned map, as dense prediction with ConvNeXt and
  Swin has it (`out_norm`).
- Maps stay channels_last throughout: LayerNorm over a contiguous axis, 1x1 convolutions as matrix products.
- Arguments that its constructor accepts and ignores (`layer_scale_init_value`, `window_sizes`, `num_heads` ...) are
  not accepted; `layer_scale_init` does what it says, for training from scratch.
- Odd sizes are floored as there: 150x203 gives 37x51, 18x25, 9x12, 4x6.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.channels_last import on_map
from ..layers.depthwise import Depthwise
from ..layers.drop_path import DropPath
from ..layers.inference import may_read
from ..layers.linear import Pointwise, gelu_
from ..layers.norm import LayerNorm2d
from ..layers.recompute import recomputed
from ..layers.residual import add_branch, fold_scale
from ..registry import register_backbone
from ._convnext_layout import ConvNeXtLayout

# Table 1 and the official constructors; base_k7 is their `conv2former_b_22k`.
ARCHS = {
    'nano': dict(depths=(2, 2, 8, 2), dims=(64, 128, 256, 512), kernel_size=7),
    'tiny': dict(depths=(3, 3, 12, 3), dims=(72, 144, 288, 576), kernel_size=11),
    'small': dict(depths=(4, 4, 32, 4), dims=(72, 144, 288, 576), kernel_size=11),
    'base': dict(depths=(4, 4, 34, 4), dims=(96, 192, 384, 768), kernel_size=11),
    'base_k7': dict(depths=(4, 4, 34, 4), dims=(96, 192, 384, 768), kernel_size=7),
    'large': dict(depths=(4, 4, 48, 4), dims=(128, 256, 512, 1024), kernel_size=11),
}


class ConvAttention(nn.Module):
    """Convolutional modulation, figure 3: a large depthwise convolution weighs the values, element by element."""

    def __init__(self, dim: int, kernel_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.att = nn.Sequential(
            Pointwise(dim, dim, 1),
            nn.GELU(),
            Depthwise(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim),
        )
        self.v = Pointwise(dim, dim, 1)
        self.proj = Pointwise(dim, dim, 1)

    def add_to(self, x: Tensor, scale: Tensor | None, drop_path: DropPath) -> Tensor:
        """`x + drop_path(scale * proj(att(norm(x)) * v(norm(x))))` for (N, H, W, C)."""
        first, activation, depthwise = self.att
        y = self.norm(x)
        a, v = on_map(first, y), on_map(self.v, y)
        if may_read(first, activation, depthwise, self.v):
            return add_branch(x, on_map(depthwise, gelu_(a)).mul_(v), self.proj, drop_path, scale, on_map)
        y = activation(a)
        with recomputed(y, lambda: activation(a)):
            modulation = on_map(depthwise, y)
        y = modulation * v
        with recomputed(y, lambda: modulation * v):
            return add_branch(x, y, self.proj, drop_path, scale, on_map)


class ConvMLP(nn.Module):
    """Feed-forward layer with a 3x3 depthwise convolution between its two pointwise ones."""

    def __init__(self, dim: int, ratio: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.fc1 = Pointwise(dim, dim * ratio, 1)
        self.pos = Depthwise(dim * ratio, dim * ratio, 3, padding=1, groups=dim * ratio)
        self.fc2 = Pointwise(dim * ratio, dim, 1)

    def add_to(self, x: Tensor, scale: Tensor | None, drop_path: DropPath) -> Tensor:
        """`x + drop_path(scale * fc2(y + gelu(pos(y))))` with `y = gelu(fc1(norm(x)))`, for (N, H, W, C)."""
        h = on_map(self.fc1, self.norm(x))
        if may_read(self.fc1, self.pos):
            y = gelu_(h)
            return add_branch(x, y.add_(gelu_(on_map(self.pos, y))), self.fc2, drop_path, scale, on_map)
        y = F.gelu(h)
        with recomputed(y, lambda: F.gelu(h)):
            local = on_map(self.pos, y)
        y = y + F.gelu(local)
        with recomputed(y, lambda: F.gelu(h).add_(F.gelu(local))):
            return add_branch(x, y, self.fc2, drop_path, scale, on_map)


class Block(nn.Module):
    """Two residual branches, each scaled per channel; (N, H, W, C) in and out. In inference `x` is overwritten."""

    def __init__(self, dim: int, kernel_size: int, drop_path: float, layer_scale_init: float) -> None:
        super().__init__()
        self.attn = ConvAttention(dim, kernel_size)
        self.mlp = ConvMLP(dim)
        self.drop_path = DropPath(drop_path)
        self.layer_scale_1 = nn.Parameter(torch.full((dim,), layer_scale_init))
        self.layer_scale_2 = nn.Parameter(torch.full((dim,), layer_scale_init))

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn.add_to(x, self.layer_scale_1, self.drop_path)
        return self.mlp.add_to(x, self.layer_scale_2, self.drop_path)

    def fuse(self) -> None:
        """Fold layer scale into the last layer of each branch."""
        for name, last in (('layer_scale_1', self.attn.proj), ('layer_scale_2', self.mlp.fc2)):
            scale = getattr(self, name)
            if scale is not None:
                fold_scale(last, scale)
                setattr(self, name, None)


class Head(nn.Module):
    """The authors' classification head, (N, C, H, W) to logits."""

    def __init__(self, dim: int, num_classes: int, hidden: int = 1280) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(dim, hidden, 1), nn.GELU(), LayerNorm2d(hidden))
        self.pred = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.pred(self.head(x).mean((2, 3)))


def _stem(dim: int) -> nn.Sequential:
    half = dim // 2
    # GELU before BatchNorm, as released.
    return nn.Sequential(
        nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False),
        nn.GELU(),
        nn.BatchNorm2d(half),
        nn.Conv2d(half, half, 3, padding=1, bias=False),
        nn.GELU(),
        nn.BatchNorm2d(half),
        nn.Conv2d(half, dim, 2, stride=2, bias=False),
    )


@register_backbone(
    conv2former_n=dict(arch='nano'),
    conv2former_t=dict(arch='tiny'),
    conv2former_s=dict(arch='small'),
    conv2former_b=dict(arch='base'),
    conv2former_b_k7=dict(arch='base_k7'),
    conv2former_l=dict(arch='large'),
)
class Conv2Former(ConvNeXtLayout):
    """Conv2Former as a pyramid of strides 4, 8, 16, 32.

    Args:
        arch: A name in `ARCHS`, or a dict with the same keys.
        layer_scale_init: Initial layer scale; 1e-6 as published, larger (0.1 to 1) learns faster from scratch.

    The other options are those of :class:`PyramidBackbone`.

    Raises:
        ValueError: Unknown arch, or options outside the architecture.
    """

    tiny_arch = dict(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), kernel_size=5)
    head_keys = r'(head|pred)\.'

    def __init__(
        self,
        arch: str | dict[str, Any] = 'tiny',
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        out_norm: bool = True,
        layer_scale_init: float = 1e-6,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        depths, dims, kernel_size = self.parse_arch(arch, ARCHS)
        super().__init__(dims, (4, 8, 16, 32), out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        self.build_trunk(
            _stem(dims[0]),
            depths,
            dims,
            drop_path_rate,
            lambda stage, rate: Block(dims[stage], kernel_size, rate, layer_scale_init),
        )
        self.finish(out_norm, LayerNorm2d)

    @property
    def min_size(self) -> int:
        # ceil(H / 2) by the stem's first convolution, then one floored halving per stage.
        return 2 ** (self.num_stages + 1) - 1

    def build_head(self, num_classes: int) -> nn.Module:
        return Head(self.out_channels[-1], num_classes)
