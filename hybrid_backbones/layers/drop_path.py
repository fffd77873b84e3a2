"""Stochastic depth (arXiv 1603.09382)."""

from collections.abc import Iterator

from torch import Tensor, nn

from .inference import known_layer


@known_layer
class DropPath(nn.Module):
    """Zero a residual branch for whole samples with probability `rate` in training, and scale the others up.

    The same as timm's and torchvision's, which are not imported to keep this package's import light.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    @property
    def active(self) -> bool:
        """Whether it drops anything."""
        return self.training and self.rate > 0.0

    def forward(self, x: Tensor) -> Tensor:
        if not self.active:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask.div_(keep)

    def extra_repr(self) -> str:
        return f'rate={self.rate:g}'


def check_rate(rate: float) -> None:
    """Refuse what is no rate of stochastic depth.

    Raises:
        ValueError: Stochastic depth that would drop everything, or less than nothing.
    """
    if not 0 <= rate < 1:
        raise ValueError(f'drop_path_rate={rate} is no probability to drop a block with; give 0 or more, less than 1')


def linear_rates(last: float, blocks: int) -> Iterator[float]:
    """Rates that grow linearly from 0 in the first of `blocks` to `last` in the last.

    Raises:
        ValueError: `last` is no probability of less than 1.
    """
    check_rate(last)
    return (last * i / max(1, blocks - 1) for i in range(blocks))
