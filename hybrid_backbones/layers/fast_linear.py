"""Linear layers of any network by the fastest products of a CPU: heads of detectors, and all layers in training."""

from typing import Any

from torch import Tensor, nn

from .inference import known_layer, may_read
from .linear import linear, product, weights_of
from .packed import forget


@known_layer
class FastLinear(nn.Linear):
    """`nn.Linear` of :func:`use_fast_linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return product(x, weights_of(self)) if may_read(self) else linear(x, self.weight, self.bias)

    def train(self, mode: bool = True) -> 'FastLinear':
        """Drops packed weights, as backbones do: averaged ones are swapped in through `.data`."""
        forget(self)
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> 'FastLinear':
        forget(self)
        return super()._apply(*args, **kwargs)


def use_fast_linear(network: nn.Module) -> list[str]:
    """Make every layer of `network` that is exactly an `nn.Linear` a :class:`FastLinear`, in place.

    Parameters, hooks and names stay. Other classes, such as adapters, are left alone.

    Returns:
        Names of the layers.
    """
    layers = {name: module for name, module in network.named_modules() if type(module) is nn.Linear}
    for layer in layers.values():
        layer.__class__ = FastLinear
    return list(layers)
