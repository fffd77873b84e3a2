"""Sizes that are known only when a file runs, as numbers."""

import torch
from torch import Tensor


def length_of(size: Tensor) -> int:
    """A length in pixels, of an integer tensor of one element; exporters keep it as a symbol."""
    length = size.item()
    torch._check(length > 0)
    return length
