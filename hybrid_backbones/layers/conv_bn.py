"""Convolution and BatchNorm as one layer of channels-last maps, and depthwise ones side by side."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .channels_last import on_map
from .depthwise import depthwise
from .folding import fold_behind, set_weights
from .large_kernel import large_depthwise
from .linear import linear


def kept_zeros(weight: Tensor) -> Tensor:
    """`weight`, whose zeros get no gradient: no optimizer moves them, and weight decay leaves a zero a zero.

    What is kept follows from the numbers at hand, so that loading or resuming needs to store nothing else.
    """
    return weight * (weight != 0) if torch.is_grad_enabled() else weight


class ConvBN(nn.Module):
    """Convolution without bias and BatchNorm, same-size but for the stride; (N, H, W, C).

    Args:
        kernel_size: Odd rows and columns, or one number for both.
        groups: 1, or `dim` for a depthwise convolution.
        keep_zeros: Weights that are zero stay zero in training, see :func:`kept_zeros`.
    """

    def __init__(
        self,
        dim: int,
        out_dim: int,
        kernel_size: int | Sequence[int] = 1,
        stride: int = 1,
        groups: int = 1,
        keep_zeros: bool = False,
    ) -> None:
        super().__init__()
        rows, columns = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        padding = rows // 2, columns // 2
        self.conv = nn.Conv2d(dim, out_dim, (rows, columns), stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_dim)
        self.keep_zeros = keep_zeros

    def forward(self, x: Tensor) -> Tensor:
        if self.bn.training:
            return on_map(self.bn, self._convolve(x, self._weight(), self.conv.bias))
        return self._convolve(x, *self.folded())

    def _weight(self) -> Tensor:
        return kept_zeros(self.conv.weight) if self.keep_zeros else self.conv.weight

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        conv = self.conv
        if conv.kernel_size == (1, 1):
            return linear(x, weight.flatten(1), bias)
        if conv.groups == 1:
            return F.conv2d(x.permute(0, 3, 1, 2), weight, bias, conv.stride, conv.padding).permute(0, 2, 3, 1)
        if conv.stride == (1, 1):
            return large_depthwise(x, [weight], bias)
        return depthwise(x, weight, bias, conv.stride[0])

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the convolution with the BatchNorm's fixed statistics."""
        if isinstance(self.bn, nn.Identity):
            return self._weight(), self.conv.bias
        return fold_behind(self._weight(), None, self.bn)

    def fuse(self) -> None:
        """Fold the BatchNorm into the convolution."""
        set_weights(self.conv, *self.folded())
        self.bn = nn.Identity().eval()


class ParallelKernels(nn.Module):
    """Sum of its children, depthwise :class:`ConvBN` of one map; with fixed statistics, in as few kernels as it takes.

    Children are added by the families, under their authors' names.
    """

    def forward(self, x: Tensor) -> Tensor:
        branches = list(self.children())
        if any(branch.bn.training for branch in branches):
            return sum(branch(x) for branch in branches)
        weights, bias = self.folded()
        return large_depthwise(x, weights, bias)

    def folded(self) -> tuple[list[Tensor], Tensor]:
        """Kernels with the BatchNorms behind them, and their common bias."""
        weights, biases = zip(*(branch.folded() for branch in self.children()), strict=True)
        return list(weights), sum(biases)
