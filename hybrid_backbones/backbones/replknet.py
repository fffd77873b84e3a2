"""RepLKNet: scaling up your kernels to 31x31, revisiting large kernel design in CNNs (arXiv 2203.06717).

Official code: DingXiaoH/RepLKNet-pytorch, `replknet.py` at b76808a, MIT. Parameters carry its names and shapes, so its
files load as they are: the training form, and with `small_kernel_merged=True` also the merged one. Deliberate
differences from the code:

- In inference the small kernel is part of the large one, and BatchNorms part of the convolutions beside them, as they
  run; `fuse()` does it once and for all, whatever class the BatchNorms are of (the authors' `deep_fuse_BN` passes over
  its own default, SyncBN). `merge()` alone gives the keys of their merged files.
- Plain `nn.Conv2d`, no compiled depthwise operator. On CPUs a kernel that is large for its map is convolved by Fourier
  transform, in training too.
- `nn.BatchNorm2d`; MMEngine's `sync_bn='torch'` in a config makes it the SyncBN of the authors' dense prediction.
- The BatchNorms that their dense RepLKNet-XL has on its maps (`stages.{i}.norm`) are `out_norm='batch'` and load as
  such; their other networks have none, hence the default.

Odd sizes are rounded up as there: 150x203 gives 38x51, 19x26, 10x13, 5x7.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints import CheckpointError, KeyLayout
from ..layers.channels_last import on_map
from ..layers.conv_bn import ConvBN, ParallelKernels
from ..layers.drop_path import DropPath, linear_rates
from ..layers.folding import convolve_folded, folded_weights, fuse_norms, has_fixed_statistics, set_weights
from ..layers.inference import check_foldable, may_read
from ..layers.large_kernel import LargeDepthwise, merge_kernels
from ..layers.linear import add_product, gelu_
from ..layers.norm import LayerNorm2d
from ..registry import register_backbone
from ._published import shape_in
from ._textbook import parallel_kernels
from .pyramid import PyramidBackbone

# Table 5 and the official constructors; `dw_ratio` widens the map under the large kernel.
ARCHS = {
    '31b': dict(
        depths=(2, 2, 18, 2), dims=(128, 256, 512, 1024), kernel_sizes=(31, 29, 27, 13), small_kernel=5, dw_ratio=1
    ),
    '31l': dict(
        depths=(2, 2, 18, 2), dims=(192, 384, 768, 1536), kernel_sizes=(31, 29, 27, 13), small_kernel=5, dw_ratio=1
    ),
    'xl': dict(
        depths=(2, 2, 18, 2),
        dims=(256, 512, 1024, 2048),
        kernel_sizes=(27, 27, 27, 13),
        small_kernel=None,
        dw_ratio=1.5,
    ),
}


def _relu(x: Tensor, of: nn.Module) -> Tensor:
    """ReLU of what `of` gave, in place in inference: fresh buffers cost a CPU more than the arithmetic on them."""
    return F.relu(x, inplace=may_read(*of.children()))


class LargeKernel(ParallelKernels):
    """Depthwise convolution with a large kernel and, until merged, a small one beside it; (N, H, W, C)."""

    def __init__(self, dim: int, kernel_size: int, small_kernel: int | None, merged: bool) -> None:
        super().__init__()
        if merged:
            self.lkb_reparam = LargeDepthwise(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
            return
        self.lkb_origin = ConvBN(dim, dim, kernel_size, groups=dim)
        if small_kernel is not None:
            self.small_conv = ConvBN(dim, dim, small_kernel, groups=dim)

    @property
    def merged(self) -> bool:
        return hasattr(self, 'lkb_reparam')

    def forward(self, x: Tensor) -> Tensor:
        if self.merged:
            return on_map(self.lkb_reparam, x)
        return super().forward(x)

    def merge(self) -> None:
        """One convolution with bias in place of branches with BatchNorms, as the authors' `merge_kernel`."""
        if self.merged:
            return
        for branch in self.children():
            check_foldable(branch, branch.conv, branch.bn)
        weights, bias = self.folded()
        conv = self.lkb_origin.conv
        set_weights(conv, merge_kernels(weights), bias)
        for name, _ in list(self.named_children()):
            delattr(self, name)
        self.lkb_reparam = conv


class Block(nn.Module):
    """`x + pw2(middle(pw1(norm(x))))`; (N, H, W, C). In inference `x` is overwritten."""

    # Name of the norm in front.
    norm: str

    def __init__(self, dim: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.add_module(self.norm, nn.BatchNorm2d(dim))
        self.pw1 = ConvBN(dim, hidden)
        self.pw2 = ConvBN(hidden, dim)
        self.drop_path = DropPath(drop_path)

    @abstractmethod
    def middle(self, x: Tensor) -> Tensor:
        """What stands between the two 1x1 convolutions, on the output of the first."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.middle(self._widen(x))
        if not self.drop_path.training and has_fixed_statistics(self.pw2.bn) and may_read(self.pw2, self.drop_path):
            return add_product(x, y, folded_weights(self.pw2.conv, self.pw2.bn))
        return x + self.drop_path(self.pw2(y))

    def _widen(self, x: Tensor) -> Tensor:
        norm, pw1 = getattr(self, self.norm), self.pw1
        if has_fixed_statistics(norm, pw1.bn) and may_read(norm, pw1):
            return convolve_folded(x, pw1.conv, pw1.bn, norm)
        return pw1(on_map(norm, x))

    def fuse(self) -> None:
        norm = getattr(self, self.norm)
        self.pw1.bn = fuse_norms(self.pw1.conv, self.pw1.bn, norm)
        setattr(self, self.norm, nn.Identity().eval())
        self.pw2.fuse()


class RepLKBlock(Block):
    """The large kernel between two 1x1 convolutions."""

    norm = 'prelkb_bn'

    def __init__(
        self, dim: int, hidden: int, kernel_size: int, small_kernel: int | None, merged: bool, drop_path: float
    ) -> None:
        super().__init__(dim, hidden, drop_path)
        self.large_kernel = LargeKernel(hidden, kernel_size, small_kernel, merged)

    def middle(self, x: Tensor) -> Tensor:
        return _relu(self.large_kernel(_relu(x, self.pw1)), self.large_kernel)

    def fuse(self) -> None:
        super().fuse()
        self.large_kernel.merge()


class ConvFFN(Block):
    """Feed-forward layer of two 1x1 convolutions."""

    norm = 'preffn_bn'

    def middle(self, x: Tensor) -> Tensor:
        return gelu_(x) if may_read(self.pw1) else F.gelu(x)


class Stage(nn.Module):
    """Blocks in pairs; run by :class:`RepLKNet`."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)


class _Head(nn.Module):
    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(dim)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x).mean((2, 3)))


@register_backbone(
    replknet_31b=dict(arch='31b'),
    replknet_31l=dict(arch='31l'),
    replknet_xl=dict(arch='xl', out_norm='batch'),
)
class RepLKNet(PyramidBackbone):
    """RepLKNet as a pyramid of strides 4, 8, 16, 32.

    Args:
        arch: A name in `ARCHS`, or a dict with the same keys.
        out_norm: Norm of every returned map: False for none as in the authors' detectors, True for LayerNorm as other
            families have it, 'batch' for BatchNorm as they have it for RepLKNet-XL (`norm_intermediate_features`).
        small_kernel_merged: Build the merged form, for inference: one large convolution with bias where the training
            form has two with BatchNorms. Files of both forms load into it.

    The other options are those of :class:`PyramidBackbone`.

    Raises:
        ValueError: Unknown arch, or options outside the architecture.
    """

    # The classifier's last norm has the name that a map's has in the authors' detectors, which have one on every map.
    checkpoint_layouts = {
        'mmpretrain': KeyLayout(
            marker=r'^stages\.3\.norm\.',
            absent=r'^stages\.0\.norm\.',
            renames=((r'^stages\.3\.norm\.', 'norm.'), (r'^openmmlab_head\.fc\.', 'head.')),
        )
    }
    checkpoint_renames = ((r'^stages\.(\d)\.norm\.', r'out_norms.\1.'),)

    tiny_arch = dict(
        depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), kernel_sizes=(31, 15, 7, 5), small_kernel=3, dw_ratio=1.5
    )
    # Kernels as large as the map average, as attention does.
    magnifies_rounding = True
    textbook_macs = {LargeKernel: parallel_kernels}

    def __init__(
        self,
        arch: str | dict[str, Any] = '31b',
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        out_norm: bool | str = False,
        small_kernel_merged: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        if out_norm not in (False, True, 'batch'):
            raise ValueError(f"out_norm={out_norm!r} of RepLKNet: expected False, True or 'batch'")
        depths, dims, kernel_sizes, small_kernel, dw_ratio = self.parse_arch(arch, ARCHS)
        super().__init__(dims, (4, 8, 16, 32), out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        if arch == 'xl':  # trained on images from -1 to 1
            self.image_mean = self.image_std = (127.5, 127.5, 127.5)
        self.depths = depths[: self.num_stages]
        self.small_kernel, self.small_kernel_merged = small_kernel, small_kernel_merged
        dim = dims[0]
        self.stem = nn.ModuleList(
            [ConvBN(3, dim, 3, 2), ConvBN(dim, dim, 3, 1, dim), ConvBN(dim, dim), ConvBN(dim, dim, 3, 2, dim)]
        )
        rates = linear_rates(drop_path_rate, sum(depths))
        self.stages = nn.ModuleList()
        self.transitions = nn.ModuleList()
        for i, (depth, dim) in enumerate(zip(self.depths, dims, strict=False)):
            if i:
                self.transitions.append(nn.ModuleList([ConvBN(dims[i - 1], dim), ConvBN(dim, dim, 3, 2, dim)]))
            blocks: list[Block] = []
            for _, rate in zip(range(depth), rates, strict=False):
                hidden = int(dim * dw_ratio)
                blocks.append(RepLKBlock(dim, hidden, kernel_sizes[i], small_kernel, small_kernel_merged, rate))
                blocks.append(ConvFFN(dim, 4 * dim, rate))
            self.stages.append(Stage(blocks))
        self.finish(bool(out_norm), nn.BatchNorm2d if out_norm == 'batch' else LayerNorm2d)

    @staticmethod
    def implied_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        return dict(small_kernel_merged=True) if shape_in(state, r'\.lkb_reparam\.') else {}

    @property
    def min_size(self) -> int:
        # Every size is rounded up.
        return 1

    @property
    def checkpoint_ignores(self) -> tuple[str, ...]:
        unbuilt = (rf'stages\.{i}\.|transitions\.{i - 1}\.' for i in range(self.num_stages, 4))
        return (r'(norm|head)\.', *unbuilt)

    def convert_checkpoint(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Merge a file of the training form for a merged network; the other way round does not exist."""
        merged = any('.lkb_reparam.' in key for key in state)
        if merged and not self.small_kernel_merged:
            raise CheckpointError(
                f'the file holds a {type(self).__name__} whose small kernels are merged, for inference: give '
                'small_kernel_merged=True, or to train, the file before merging'
            )
        return state if merged or not self.small_kernel_merged else _merge(state, self.small_kernel)

    def forward_stage(self, x: Tensor, index: int) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        for layer in self.transitions[index - 1] if index else self.stem:
            x = _relu(layer(x), layer)
        x = x.contiguous()
        for block in self.stages[index].blocks:
            x = self.run_block(block, x)
        return x.permute(0, 3, 1, 2)

    @torch.no_grad()
    def merge(self) -> 'RepLKNet':
        """Merge small kernels alone, in place: the authors' `structural_reparam`, whose files have these keys."""
        for module in self.modules():
            if isinstance(module, LargeKernel):
                module.merge()
        self.small_kernel_merged = True
        return self

    @torch.no_grad()
    def fuse(self) -> 'RepLKNet':
        self.merge()
        for module in self.modules():
            if isinstance(module, Block | ConvBN):
                module.fuse()
        return self

    def stage_modules(self, index: int) -> list[nn.Module]:
        if index == -1:
            return [self.stem]
        return [self.stages[index], *([self.transitions[index - 1]] if index else [])]

    def build_head(self, num_classes: int) -> nn.Module:
        return _Head(self.out_channels[-1], num_classes)

    def block_of(self, name: str) -> tuple[int, int]:
        kind, stage, _, entry, *_ = name.split('.')
        if kind == 'stem':
            return -1, 0
        # Blocks are counted in pairs of a large kernel and a feed-forward layer.
        return (int(stage), int(entry) // 2) if kind == 'stages' else (int(stage) + 1, 0)


def _merge(state: dict[str, Tensor], small_kernel: int | None) -> dict[str, Tensor]:
    """Tensors of the merged form from those of the training form."""
    branches: dict[str, dict[str, Tensor]] = {}
    merged = {}
    for key, value in state.items():
        prefix, found, name = key.partition('.large_kernel.')
        if found:
            branches.setdefault(prefix + found, {})[name] = value
        else:
            merged[key] = value
    for prefix, part in branches.items():
        weight = part.get('lkb_origin.conv.weight', torch.empty(1, 1, 1, 1))
        kernel = LargeKernel(weight.shape[0], weight.shape[2], small_kernel, merged=False)
        missing, unexpected = kernel.load_state_dict(part, strict=False)
        if unexpected or any(not name.endswith('num_batches_tracked') for name in missing):
            merged |= {prefix + name: value for name, value in part.items()}  # to be named among what does not fit
            continue
        with torch.no_grad():
            kernel.merge()
        merged |= {prefix + name: value for name, value in kernel.state_dict().items()}
    return merged
