"""Squeeze-and-excitation (arXiv 1709.01507) with SiLU between its layers."""

import torch.nn.functional as F
from torch import Tensor, nn

from .inference import may_read


class SqueezeExcite(nn.Module):
    """Channel weights from the mean over the map (N, C, H, W), which is overwritten in inference."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc2(F.silu(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()
        return x.mul_(gate) if may_read(self.fc1, self.fc2) else x * gate
