"""HorNet: efficient high-order spatial interactions with recursive gated convolutions (arXiv 2207.14284).

Official code: raoyongming/HorNet, `hornet.py` at ac9e210, MIT. Parameters carry its names and shapes, so its files load
as they are. Kept as there: the scale of 1/3 behind the depthwise convolution, layer scale at 1e-6 at first, halves of
the global filter's output interleaved channel by channel, weight decay on its `complex_weight`, which has four
dimensions. Deliberate differences:

- The head stands apart (`create_classifier`); an output norm per returned map, as in the authors' detectors, where it
  is called `norm{i}` (`out_norm`).
- Maps stay channels_last throughout: LayerNorm over a contiguous axis, 1x1 convolutions as matrix products. In
  inference the first one's two parts are computed apart, so that neither is a strided slice of the other's memory.
- In inference, filters resized to the map at hand are kept for the last few sizes. Fourier transforms are never below
  float32, and float64 for float64 maps.
- The authors' detectors fail without pretrained weights; these start from scratch as well.

Sizes are floored: 150x203 gives 37x50, 18x25, 9x12, 4x6. A global filter sees the whole map, so that padding an image
changes what it says of the rest; and off the size it was learned at, it is an approximation.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints import KeyLayout
from ..layers.channels_last import on_map
from ..layers.depthwise import Depthwise, depthwise
from ..layers.drop_path import DropPath
from ..layers.inference import may_read
from ..layers.linear import Pointwise, product
from ..layers.norm import LayerNorm2d
from ..layers.packed import Weights
from ..layers.position import SizeCache
from ..layers.residual import add_branch, add_mlp, fold_scale
from ..registry import register_backbone
from ._convnext_layout import ConvNeXtLayout, Head
from ._published import shape_in

# Table 1 and the official constructors; stages with `gf` have global filters instead of 7x7 convolutions.
ARCHS = {
    'tiny': dict(depths=(2, 3, 18, 2), dims=(64, 128, 256, 512), orders=(2, 3, 4, 5), gf=()),
    'small': dict(depths=(2, 3, 18, 2), dims=(96, 192, 384, 768), orders=(2, 3, 4, 5), gf=()),
    'base': dict(depths=(2, 3, 18, 2), dims=(128, 256, 512, 1024), orders=(2, 3, 4, 5), gf=()),
    'large': dict(depths=(2, 3, 18, 2), dims=(192, 384, 768, 1536), orders=(2, 3, 4, 5), gf=()),
    'tiny_gf': dict(depths=(2, 3, 18, 2), dims=(64, 128, 256, 512), orders=(2, 3, 4, 5), gf=(2, 3)),
    'small_gf': dict(depths=(2, 3, 18, 2), dims=(96, 192, 384, 768), orders=(2, 3, 4, 5), gf=(2, 3)),
    'base_gf': dict(depths=(2, 3, 18, 2), dims=(128, 256, 512, 1024), orders=(2, 3, 4, 5), gf=(2, 3)),
    'large_gf': dict(depths=(2, 3, 18, 2), dims=(192, 384, 768, 1536), orders=(2, 3, 4, 5), gf=(2, 3)),
}
STRIDES = (4, 8, 16, 32)
# Of the gates: the authors' `s` of gnConv.
SCALE = 1 / 3


def resize_filter(weight: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resizing of a filter's real and imaginary plane, corners on corners.

    Args:
        weight: (C, h, w, 2).
        height: Rows of the spectrum.
        width: Columns of the spectrum.

    Returns:
        (C, height, width, 2); `weight` itself when it has that size.
    """
    if not torch.compiler.is_exporting() and weight.shape[1:3] == (height, width):
        return weight
    planes = F.interpolate(weight.permute(3, 0, 1, 2), (height, width), mode='bilinear', align_corners=True)
    return planes.permute(1, 2, 3, 0)


class GlobalLocalFilter(nn.Module):
    """A 3x3 convolution of one half of the channels, a filter in the frequency domain of the other.

    Args:
        dim: Channels.
        height: Rows of the spectrum that the filter is learned at.
        width: Columns of it, height // 2 + 1 for square images.
    """

    def __init__(self, dim: int, height: int, width: int) -> None:
        super().__init__()
        half = dim // 2
        self.dw = Depthwise(half, half, 3, padding=1, groups=half, bias=False)
        self.complex_weight = nn.Parameter(torch.empty(half, height, width, 2))
        nn.init.trunc_normal_(self.complex_weight, std=0.02)
        self.pre_norm = nn.LayerNorm(dim, eps=1e-6)
        self.post_norm = nn.LayerNorm(dim, eps=1e-6)
        self.resized = SizeCache()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in and out, channels_last."""
        x = x.permute(0, 2, 3, 1)
        local, wide = self.pre_norm(x).chunk(2, -1)
        local = on_map(self.dw, local.contiguous())
        mixed = torch.stack([local, self._filter(wide).to(local.dtype)], -1).flatten(-2)
        return self.post_norm(mixed).permute(0, 3, 1, 2)

    def _filter(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        x = x.to(torch.promote_types(x.dtype, torch.float32)).permute(0, 3, 1, 2)
        if torch.compiler.is_exporting():
            return _filter_by_products(x, self.complex_weight).permute(0, 2, 3, 1)
        spectrum = torch.fft.rfft2(x, norm='ortho')
        size = tuple(spectrum.shape[2:])
        weight = self.resized(self.complex_weight, size, lambda: self._weight(*size))
        return torch.fft.irfft2(spectrum * weight, (height, width), norm='ortho').permute(0, 2, 3, 1)

    def _weight(self, height: int, width: int) -> Tensor:
        weight = resize_filter(self.complex_weight, height, width)
        return torch.view_as_complex(weight.to(torch.promote_types(weight.dtype, torch.float32)).contiguous())


def _filter_by_products(x: Tensor, weight: Tensor) -> Tensor:
    """The filter of :class:`GlobalLocalFilter` on (N, C, H, W), for exporters, by matrix products with sines.

    onnxruntime has no Fourier transform of two axes, and none for real maps whose size is not fixed.

    Args:
        weight: (C, h, w, 2).
    """
    height, width = x.shape[2:]
    half = width // 2 + 1
    down, across = _waves(height, height, x), _waves(width, half, x)
    # (N, C, H, W / 2 + 1), the spectrum along rows and then along columns.
    real, imaginary = x @ across[0], -(x @ across[1])
    real, imaginary = down[0] @ real + down[1] @ imaginary, down[0] @ imaginary - down[1] @ real
    filters = resize_filter(weight, height, half).to(x.dtype).unbind(-1)
    real, imaginary = real * filters[0] - imaginary * filters[1], real * filters[1] + imaginary * filters[0]
    real, imaginary = down[0] @ real - down[1] @ imaginary, down[0] @ imaginary + down[1] @ real
    # Every frequency but none and the highest of an even width stands for its mirror image, too.
    place = torch.arange(half, device=x.device)
    shares = 1 + ((place > 0) & (2 * place < width)).to(x.dtype)
    return (real * shares) @ across[0].t() - (imaginary * shares) @ across[1].t()


def _waves(length: int, frequencies: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of an orthonormal Fourier transform, (length, frequencies) each, in the dtype of `like`."""
    places, waves = (torch.arange(count, device=like.device) for count in (length, frequencies))
    # Turns as whole numbers below `length`: their product alone would lose digits.
    turns = (places[:, None] * waves % torch.full_like(places[:1], length)).to(like.dtype) / length
    return torch.cos(2 * math.pi * turns) / length**0.5, torch.sin(2 * math.pi * turns) / length**0.5


class GnConv(nn.Module):
    """Recursive gated convolution, equations 3.3 and 3.4: ever wider parts of one depthwise convolution as gates.

    Args:
        dim: Channels.
        order: Number of gates; the first is dim / 2 ** (order - 1) channels wide.
        filter_shape: Of the spectrum of a global filter in place of the 7x7 convolution.
    """

    def __init__(self, dim: int, order: int, filter_shape: tuple[int, int] | None) -> None:
        super().__init__()
        self.dims = [dim // 2**i for i in reversed(range(order))]
        gates = sum(self.dims)
        self.proj_in = Pointwise(dim, 2 * dim, 1)
        if filter_shape is None:
            self.dwconv = Depthwise(gates, gates, 7, padding=3, groups=gates)
        else:
            self.dwconv = GlobalLocalFilter(gates, *filter_shape)
        self.proj_out = Pointwise(dim, dim, 1)
        self.pws = nn.ModuleList(Pointwise(a, b, 1) for a, b in zip(self.dims, self.dims[1:], strict=False))
        self.scale = SCALE

    def forward(self, x: Tensor) -> Tensor:
        """What `proj_out` is to mix, for (N, H, W, C)."""
        inplace = may_read(self.proj_in, *self.pws)
        multiply = torch.Tensor.mul_ if inplace else torch.mul
        y, wide = self._project_apart(x) if inplace else on_map(self.proj_in, x).split(self._parts, -1)
        gate, *gates = self._gates(wide).split(self.dims, -1)
        y = multiply(y, gate)
        for pw, gate in zip(self.pws, gates, strict=True):
            y = multiply(on_map(pw, y), gate)
        return y

    @property
    def _parts(self) -> tuple[int, int]:
        """Channels of `proj_in` that are gated first, and that all gates are made of."""
        return self.dims[0], sum(self.dims)

    def _project_apart(self, x: Tensor) -> list[Tensor]:
        """The parts of `proj_in`, each in memory of its own."""
        weight, bias = self.proj_in.weight, self.proj_in.bias

        def part(number: int, features: int) -> Tensor:
            def make() -> tuple[Tensor, Tensor]:
                return weight.flatten(1).split(self._parts)[number], bias.split(self._parts)[number]

            return product(x, Weights(self.proj_in, features, (weight, bias), make, f'part {number}'))

        return [part(number, features) for number, features in enumerate(self._parts)]

    def _gates(self, x: Tensor) -> Tensor:
        if may_read(self.dwconv):
            weight, bias = self.dwconv.weight * self.scale, self.dwconv.bias * self.scale
            return depthwise(x, weight.to(x.dtype), bias.to(x.dtype))
        return on_map(self.dwconv, x.contiguous()) * self.scale

    def fuse(self) -> None:
        """Fold the scale into the layer before it."""
        fold_scale(getattr(self.dwconv, 'post_norm', self.dwconv), self.scale)
        self.scale = 1.0


class Block(nn.Module):
    """Two residual branches, each scaled per channel; (N, H, W, C) in and out. In inference `x` is overwritten."""

    def __init__(
        self, dim: int, order: int, filter_shape: tuple[int, int] | None, drop_path: float, layer_scale_init: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.gnconv = GnConv(dim, order, filter_shape)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma1 = nn.Parameter(torch.full((dim,), layer_scale_init))
        self.gamma2 = nn.Parameter(torch.full((dim,), layer_scale_init))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.gnconv(self.norm1(x))
        x = add_branch(x, y, self.gnconv.proj_out, self.drop_path, self.gamma1, on_map)
        return add_mlp(x, self.norm2(x), self.pwconv1, self.pwconv2, self.drop_path, self.gamma2)

    def fuse(self) -> None:
        """Fold both scales of the first branch and the one of the second into layers before them."""
        self.gnconv.fuse()
        for name, last in (('gamma1', self.gnconv.proj_out), ('gamma2', self.pwconv2)):
            scale = getattr(self, name)
            if scale is not None:
                fold_scale(last, scale)
                setattr(self, name, None)


@register_backbone(
    hornet_t=dict(arch='tiny'),
    hornet_s=dict(arch='small'),
    hornet_b=dict(arch='base'),
    hornet_l=dict(arch='large'),
    hornet_t_gf=dict(arch='tiny_gf'),
    hornet_s_gf=dict(arch='small_gf'),
    hornet_b_gf=dict(arch='base_gf'),
    hornet_l_gf=dict(arch='large_gf'),
)
class HorNet(ConvNeXtLayout):
    """HorNet as a pyramid of strides 4, 8, 16, 32.

    Args:
        arch: A name in `ARCHS`, or a dict with the same keys.
        layer_scale_init: Initial layer scale; 1e-6 as published, larger (1e-3) learns faster from scratch. With 1, the
            gradients of padded images overflow at first: padding is a zero vector until the biases have learned, and
            each block's LayerNorm magnifies what comes back to it a thousandfold.
        filter_image_size: Side in pixels of the square images whose spectra give the global filters their size: 224,
            or 384 as in the authors' `hornet_large_gf_img384`, their segmentors and their largest detector.

    The other options are those of :class:`PyramidBackbone`.

    Raises:
        ValueError: Unknown arch, or options outside the architecture.
    """

    checkpoint_layouts = {
        'mmpretrain': KeyLayout(
            marker=r'\.gnconv\.projs\.',
            absent=r'^norm0\.',
            renames=(
                (r'^norm3\.', 'norm.'),
                (r'\.gnconv\.projs\.', '.gnconv.pws.'),
                (r'\.(gamma[12])\.weight$', r'.\1'),
                (r'^openmmlab_head\.fc\.', 'head.'),
            ),
        )
    }
    # The authors' detectors and segmentors have a norm on every map.
    checkpoint_renames = ((r'^norm(\d)\.', r'out_norms.\1.'),)

    tiny_arch = dict(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), orders=(2, 3, 3, 4), gf=(2, 3))
    head_keys = r'(norm|head)\.'

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
        filter_image_size: int = 224,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        depths, dims, orders, gf = self.parse_arch(arch, ARCHS)
        super().__init__(dims, STRIDES, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)

        def make_block(stage: int, rate: float) -> Block:
            side = filter_image_size // STRIDES[stage]
            shape = (side, side // 2 + 1) if stage in gf else None
            return Block(dims[stage], orders[stage], shape, rate, layer_scale_init)

        stem = nn.Sequential(nn.Conv2d(3, dims[0], 4, stride=4), LayerNorm2d(dims[0]))
        self.build_trunk(stem, depths, dims, drop_path_rate, make_block)
        self.finish(out_norm, LayerNorm2d)

    @staticmethod
    def implied_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        shape = shape_in(state, r'^stages\.2\.0\.gnconv\.dwconv\.complex_weight$')
        return dict(filter_image_size=16 * shape[1]) if shape and shape[1] != 14 else {}

    @property
    def min_size(self) -> int:
        return STRIDES[self.num_stages - 1]

    def convert_checkpoint(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Filters of another size are resized to this network's, as the authors' detectors and segmentors do."""
        own = {key: value.shape[1:3] for key, value in self.state_dict().items() if key.endswith('.complex_weight')}
        fits = {key: resize_filter(value, *own[key]) for key, value in state.items() if key in own and value.ndim == 4}
        return {**state, **fits}

    def build_head(self, num_classes: int) -> nn.Module:
        return Head(self.out_channels[-1], num_classes)
