"""SLaK: more ConvNets in the 2020s, scaling up kernels beyond 51x51 using sparsity (arXiv 2207.03620).

Official code: VITA-Group/SLaK, `models/SLaK.py` at 44b4aab, MIT. Parameters carry its names and shapes, so its files
load as they are. These are the published networks: kernels decomposed into 51x5 and 5x51 beside 5x5 (`Decom=True`),
widths times 1.3, which makes odd numbers of channels. Deliberate differences from the code:

- The head stands apart (`create_classifier`); an output norm per returned map, as in the authors' detectors, where it
  is called `norm{i}` (`out_norm`).
- Plain `nn.Conv2d`, no compiled depthwise operator. On CPUs a kernel that is large for its map is convolved by Fourier
  transform, in training too.
- `nn.BatchNorm2d`; MMEngine's `sync_bn='torch'` in a config makes it the authors' SyncBN.
- `fuse()` folds the BatchNorms branch by branch. The authors' merge into one kernel fails on this form, and such a
  kernel would cost half as much again.
- Published tensors are dense, two fifths of them zeros. Their share is logged as a file is loaded. `keep_sparse` keeps
  them zero in training by leaving them without gradient, where the authors' detectors multiply the weights by masks at
  every forward pass; it needs no masks in a checkpoint, and a resumed run continues alike.

Sizes are floored: 150x203 gives 37x50, 18x25, 9x12, 4x6.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..layers.conv_bn import ConvBN, ParallelKernels
from ..layers.drop_path import DropPath
from ..layers.norm import LayerNorm2d
from ..layers.residual import add_mlp, fold_scale
from ..layers.sparse import keep_zeros
from ..registry import register_backbone
from ._convnext_layout import ConvNeXtLayout, Head
from ._textbook import parallel_kernels

# Table 1 and the authors' commands; dims are those of ConvNeXt times 1.3, rounded down.
ARCHS = {
    'tiny': dict(depths=(3, 3, 9, 3), dims=(124, 249, 499, 998), kernel_sizes=(51, 49, 47, 13), small_kernel=5),
    'small': dict(depths=(3, 3, 27, 3), dims=(124, 249, 499, 998), kernel_sizes=(51, 49, 47, 13), small_kernel=5),
    'base': dict(depths=(3, 3, 27, 3), dims=(166, 332, 665, 1331), kernel_sizes=(51, 49, 47, 13), small_kernel=5),
}
STRIDES = (4, 8, 16, 32)


def zero_share(tensors: dict[str, Tensor]) -> float:
    """Share of zeros among the numbers of matrices and kernels, which are what SLaK makes sparse."""
    weights = [t for t in tensors.values() if t.ndim > 1]
    return sum(int((t == 0).sum()) for t in weights) / max(1, sum(t.numel() for t in weights))


class DecomposedKernel(ParallelKernels):
    """Two rectangular depthwise kernels, crossing, and a small one; (N, H, W, C)."""

    def __init__(self, dim: int, kernel_size: int, small_kernel: int) -> None:
        super().__init__()
        self.LoRA1 = ConvBN(dim, dim, (kernel_size, small_kernel), groups=dim)
        self.LoRA2 = ConvBN(dim, dim, (small_kernel, kernel_size), groups=dim)
        self.small_conv = ConvBN(dim, dim, small_kernel, groups=dim)


class Block(nn.Module):
    """ConvNeXt's block with a decomposed kernel; (N, H, W, C). In inference `x` is overwritten."""

    def __init__(
        self, dim: int, kernel_size: int, small_kernel: int, drop_path: float, layer_scale_init: float
    ) -> None:
        super().__init__()
        self.large_kernel = DecomposedKernel(dim, kernel_size, small_kernel)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), layer_scale_init))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.large_kernel(x))
        return add_mlp(x, y, self.pwconv1, self.pwconv2, self.drop_path, self.gamma)

    def fuse(self) -> None:
        """Fold each branch's BatchNorm into its kernel, and layer scale into the last layer."""
        for branch in self.large_kernel.children():
            branch.fuse()
        if self.gamma is not None:
            fold_scale(self.pwconv2, self.gamma)
            self.gamma = None


@register_backbone(
    slak_t=dict(arch='tiny'),
    slak_s=dict(arch='small'),
    slak_b=dict(arch='base'),
)
class SLaK(ConvNeXtLayout):
    """SLaK as a pyramid of strides 4, 8, 16, 32.

    Args:
        arch: A name in `ARCHS`, or a dict with the same keys.
        keep_sparse: Matrices and kernels keep the zeros that they have, as loaded, through training; False trains them
            like any other number.
        layer_scale_init: Initial layer scale; 1e-6 as published, larger learns faster from scratch.

    The other options are those of :class:`PyramidBackbone`.

    Raises:
        ValueError: Unknown arch, or options outside the architecture.
    """

    # The authors' detectors and segmentors have a norm on every map.
    checkpoint_renames = ((r'^norm(\d)\.', r'out_norms.\1.'),)

    tiny_arch = dict(depths=(1, 1, 2, 1), dims=(9, 17, 24, 31), kernel_sizes=(31, 15, 9, 7), small_kernel=3)
    textbook_macs = {DecomposedKernel: parallel_kernels}
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
        keep_sparse: bool = False,
        layer_scale_init: float = 1e-6,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        depths, dims, kernel_sizes, small_kernel = self.parse_arch(arch, ARCHS)
        super().__init__(dims, STRIDES, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        self.keep_sparse = keep_sparse
        self.build_trunk(
            nn.Sequential(nn.Conv2d(3, dims[0], 4, stride=4), LayerNorm2d(dims[0])),
            depths,
            dims,
            drop_path_rate,
            lambda stage, rate: Block(dims[stage], kernel_sizes[stage], small_kernel, rate, layer_scale_init),
        )
        if keep_sparse:
            keep_zeros(self)
        self.finish(out_norm, LayerNorm2d)

    @property
    def min_size(self) -> int:
        return STRIDES[self.num_stages - 1]

    def convert_checkpoint(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The file as it is; how sparse it is goes to the log."""
        if any(value.is_meta for value in state.values()):
            return state  # shapes alone, as zoo/identify.py compares them
        then = 'kept in training' if self.keep_sparse else 'trained like any other (keep_sparse=True keeps them)'
        print_log(f'SLaK: {zero_share(state):.1%} of the weights in the file are zero, {then}', 'current')
        return state

    def build_head(self, num_classes: int) -> nn.Module:
        return Head(self.out_channels[-1], num_classes)
