"""Layers whose zeros stay zero in training."""

import torch
from torch import Tensor, nn

from .inference import known_layer
from .large_kernel import LargeDepthwise
from .linear import linear


def kept_zeros(weight: Tensor) -> Tensor:
    """`weight`, whose zeros get no gradient: no optimizer moves them, and weight decay leaves a zero a zero.

    What is kept follows from the numbers at hand, so that loading or resuming needs to store nothing else. Weights
    that are all zero are not sparse but untrained, as those of a new adapter are.
    """
    if not torch.is_grad_enabled():
        return weight
    nonzero = weight != 0
    return weight * (nonzero | ~nonzero.any())


@known_layer
class SparseLinear(nn.Linear):
    """Linear layer that keeps the zeros of its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, kept_zeros(self.weight), self.bias)


@known_layer
class SparseConv2d(nn.Conv2d):
    """Convolution that keeps the zeros of its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, kept_zeros(self.weight), self.bias)


@known_layer
class SparseLargeDepthwise(LargeDepthwise):
    """Depthwise convolution that keeps the zeros of its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, kept_zeros(self.weight), self.bias)


_SPARSE = {nn.Linear: SparseLinear, nn.Conv2d: SparseConv2d, LargeDepthwise: SparseLargeDepthwise}


def keep_zeros(network: nn.Module) -> None:
    """Change the layers of `network` into those that keep their zeros; nothing but their class changes."""
    for module in network.modules():
        module.__class__ = _SPARSE.get(type(module), type(module))
