"""What the operators share: torchvision's compiled kernels and the precision they run in."""

from types import ModuleType

import torch
from torch import Tensor


def torchvision_kernels() -> ModuleType:
    """`torch.ops.torchvision`, importing torchvision at first use (importing it takes seconds).

    Raises:
        RuntimeError: if torchvision was built for another torch, so that its kernels did not load.
    """
    import torchvision

    torchvision.extension._assert_has_ops()
    return torch.ops.torchvision


def working_dtype(tensor: Tensor) -> torch.dtype:
    """The precision to compute in: that of `tensor`, and float32 for narrower ones.

    torchvision has no bf16 kernels on a CPU, and coordinates of an 800x1333 image do not fit into 8 or 11 bits.
    """
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
