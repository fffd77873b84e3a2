"""The stem of a plain network: an image as one token per patch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .crop import leading
from .sizes import to_multiple


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """(N, C, H, W) with zeros on the right and below, so that `multiple` divides both sides."""
    rows, columns = (to_multiple(side, multiple) for side in x.shape[2:])
    return F.pad(x, (0, columns, 0, rows))


def crop(x: Tensor, height: int, width: int) -> Tensor:
    """The first rows and columns of (N, C, H, W), channels_last in memory."""
    if torch.compiler.is_dynamo_compiling() and not torch.compiler.is_exporting():
        # Of a view, a compiler would make one graph for sizes that leave nothing to cut off and one for others.
        rows = x.permute(0, 2, 3, 1)
        return F.pad(rows, (0, 0, 0, width - x.shape[3], 0, height - x.shape[2])).permute(0, 3, 1, 2)
    x = leading(leading(x, 2, height), 3, width)
    keep = x.clone if torch.compiler.is_compiling() else x.contiguous
    return keep(memory_format=torch.channels_last)


class PatchEmbed(nn.Module):
    """One linear layer per patch of 16x16 pixels; an image that they do not divide is padded with zeros.

    A stem gives its grid (N, H / 16, W / 16, C), rounded up, and finer maps (N, C', H / s, W / s) by stride s, of which
    this one has none.
    """

    def __init__(self, dim: int, patch_size: int = 16) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(3, dim, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """(N, 3, H, W) to the grid and no finer maps."""
        return self.proj(pad_to_multiple(x, self.patch_size)).permute(0, 2, 3, 1), {}
