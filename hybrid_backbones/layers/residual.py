"""The end of every residual branch: its last layer, layer scale, stochastic depth, and the sum."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .channels_last import call
from .drop_path import DropPath
from .inference import check_foldable, has_hooks, may_read
from .linear import add_product, product, weights_of
from .recompute import recomputed

Call = Callable[[nn.Module, Tensor], Tensor]


def add_branch(
    x: Tensor, y: Tensor, last: nn.Module, drop_path: DropPath, scale: Tensor | None = None, call: Call = call
) -> Tensor:
    """`x + drop_path(scale * last(y))`; in inference in place, summed by the matrix product.

    Args:
        x: (..., D), contiguous for speed; overwritten in inference.
        y: (..., C), contiguous for speed.
        last: Linear layer, or 1x1 convolution, from C to D channels.
        drop_path: Stochastic depth of the branch.
        scale: Layer scale (D,); None for none.
        call: How `last` is called; for a convolution, `on_map`.
    """
    if not drop_path.training and may_read(last, drop_path):
        # A GPU's depthwise and pooling kernels do not all keep channels_last.
        return add_product(x.contiguous(), y, weights_of(last, scale))
    branch = call(last, y)
    if scale is None:
        return x + drop_path(branch)
    scale = scale.to(branch.dtype)
    if drop_path.active or has_hooks(drop_path):
        return x + drop_path(branch * scale)
    return torch.addcmul(x, branch, scale)


def add_mlp(
    x: Tensor,
    y: Tensor,
    first: nn.Module,
    last: nn.Module,
    drop_path: DropPath,
    scale: Tensor | None = None,
    call: Call = call,
) -> Tensor:
    """`x + drop_path(scale * last(gelu(first(y))))`, see :func:`add_branch`.

    What GELU gives is recomputed in the backward pass: it is as large as what it is given, and costs little.
    """
    if may_read(first):
        return add_branch(x, product(y, weights_of(first), 'gelu'), last, drop_path, scale, call)
    wide = call(first, y)
    hidden = F.gelu(wide)
    with recomputed(hidden, lambda: F.gelu(wide)):
        return add_branch(x, hidden, last, drop_path, scale, call)


@torch.no_grad()
def fold_scale(layer: nn.Module, scale: Tensor | float) -> None:
    """Multiply a scale, (D,) or a number, into the weights of the layer before it, for good.

    Raises:
        TypeError: The layer has been replaced, by an adapter for example.
    """
    check_foldable(layer)
    scale = torch.as_tensor(scale, device=layer.bias.device)
    layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.ndim - 1)))
    layer.bias.mul_(scale)
