"""Parts of maps, cut so that exporters give one program for sizes that leave something to cut off and for others."""

import torch
from torch import Tensor


def leading(x: Tensor, dim: int, length: int) -> Tensor:
    """The first `length` along an axis; in an exported program a copy.

    A slice is laid out in memory as the whole or otherwise by how much is left, which exporters ask about for the
    example and take for granted thereafter.
    """
    if torch.compiler.is_exporting():
        return x.index_select(dim, torch.arange(length, device=x.device))
    return x.narrow(dim, 0, length)
