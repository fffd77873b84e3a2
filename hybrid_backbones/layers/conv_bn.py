"""Convolution and BatchNorm as one layer of channels-last maps, and depthwise ones side by side."""

from collections.abc import Sequence

from torch import Tensor, nn

from .depthwise import Depthwise
from .folding import conv_norm, folded, fuse_norms, has_fixed_statistics
from .inference import known_layer, may_read
from .kept import kept
from .large_kernel import LargeDepthwise, join_kernels, large_depthwise
from .linear import Pointwise


@known_layer
class ConvBN(nn.Module):
    """Convolution without bias and BatchNorm, same-size but for the stride; (N, H, W, C).

    Args:
        kernel_size: Odd rows and columns, or one number for both.
        groups: 1, or `dim` for a depthwise convolution.
    """

    def __init__(
        self, dim: int, out_dim: int, kernel_size: int | Sequence[int] = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        rows, columns = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        if (rows, columns) == (1, 1):
            kind = Pointwise
        elif groups == 1:
            kind = nn.Conv2d
        else:
            kind = LargeDepthwise if stride == 1 else Depthwise
        padding = rows // 2, columns // 2
        self.conv = kind(dim, out_dim, (rows, columns), stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_dim)

    def forward(self, x: Tensor) -> Tensor:
        return conv_norm(x, self.conv, self.bn)

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the convolution with the BatchNorm's fixed statistics."""
        return folded(self.conv, self.bn)

    def fuse(self) -> None:
        """Fold the BatchNorm into the convolution."""
        self.bn = fuse_norms(self.conv, self.bn)


class ParallelKernels(nn.Module):
    """Sum of its children, depthwise :class:`ConvBN` of one map; in inference in as few kernels as it takes.

    Children are added by the families, under their authors' names.
    """

    def forward(self, x: Tensor) -> Tensor:
        branches = list(self.children())
        if may_read(*branches) and has_fixed_statistics(*(branch.bn for branch in branches)):
            return large_depthwise(x, *self._joined())
        return sum(branch(x) for branch in branches)

    def _joined(self) -> tuple[list[Tensor], Tensor]:
        """Those of :meth:`folded` in as few kernels as it takes for maps larger than all; kept for inference."""
        sources = [tensor for branch in self.children() for tensor in branch.folded()]

        def join() -> tuple[list[Tensor], Tensor]:
            weights, bias = self.folded()
            return join_kernels(weights), bias

        return kept(self, sources, join)

    def folded(self) -> tuple[list[Tensor], Tensor]:
        """Kernels with the BatchNorms behind them, and their common bias."""
        weights, biases = zip(*(branch.folded() for branch in self.children()), strict=True)
        return list(weights), sum(biases)
