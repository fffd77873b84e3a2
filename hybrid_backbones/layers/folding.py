"""BatchNorm with fixed statistics as part of the convolution beside it."""

from collections.abc import Callable
from functools import partial
from itertools import chain

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .channels_last import on_map
from .inference import check_foldable, may_read
from .kept import kept
from .linear import Pointwise, gelu_, product
from .packed import Weights


def conv_norm(x: Tensor, conv: nn.Module, norm: nn.Module) -> Tensor:
    """`norm(conv(x))` of (N, H, W, C); in inference as one convolution.

    Args:
        x: (N, H, W, C).
        conv: Convolution, on (N, C, H, W).
        norm: BatchNorm behind it; `nn.Identity` when folded for good.
    """
    if has_fixed_statistics(norm) and may_read(conv, norm):
        return convolve_folded(x, conv, norm)
    return on_map(norm, on_map(conv, x))


def convolve(conv: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What `conv` makes of (N, H, W, C) with other weights."""
    return conv._conv_forward(x.permute(0, 3, 1, 2), weight, bias).permute(0, 2, 3, 1)


def convolve_folded(
    x: Tensor, conv: nn.Conv2d, behind: nn.Module, before: nn.Module | None = None, activation: str = 'none'
) -> Tensor:
    """`activation(behind(conv(before(x))))` of (N, H, W, C) as one convolution, without gradients, see :func:`folded`.

    Args:
        activation: `none` or `gelu`.
    """
    if isinstance(conv, Pointwise):
        return product(x, folded_weights(conv, behind, before), activation)
    y = convolve(conv, x, *folded(conv, behind, before))
    return y if activation == 'none' else gelu_(y)


def folded_weights(conv: Pointwise, behind: nn.Module, before: nn.Module | None = None) -> Weights:
    """Those of :func:`folded` for a matrix product."""

    def matrix(fold: Callable) -> tuple[Tensor, Tensor | None]:
        weight, bias = fold(conv, behind, before)
        return weight.flatten(1), bias

    norms = [norm for norm in (behind, before) if isinstance(norm, _BatchNorm)]
    of_norms = (t for norm in norms for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var))
    sources = conv.weight, conv.bias, *of_norms
    return Weights(conv, conv.out_channels, sources, partial(matrix, _fold), keep=partial(matrix, folded))


def has_fixed_statistics(*norms: nn.Module) -> bool:
    """Whether none of `norms` normalizes by the statistics of the batch."""
    return not any(norm.training and not isinstance(norm, nn.Identity) for norm in norms)


def folded(conv: nn.Conv2d, behind: nn.Module, before: nn.Module | None = None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of `conv` with the BatchNorms beside it, `nn.Identity` once they are folded for good.

    Without gradients they are kept until a parameter or statistic changes, see also :func:`~.kept.forget_kept`.

    Args:
        conv: Convolution; 1x1 where there is a norm in front.
        behind: BatchNorm behind it.
        before: BatchNorm in front of it.
    """
    norms = [norm for norm in (behind, before) if isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm)]
    if not norms:
        return _fold(conv, behind, before)
    tensors = chain.from_iterable((*m._parameters.values(), *m._buffers.values()) for m in (conv, *norms))
    return kept(conv, list(tensors), partial(_fold, conv, behind, before))


def _fold(conv: nn.Conv2d, behind: nn.Module, before: nn.Module | None) -> tuple[Tensor, Tensor | None]:
    weight, bias = conv.weight, conv.bias
    if before is not None and not isinstance(before, nn.Identity):
        weight, shift = fold_before(before, weight)
        bias = shift if bias is None else bias + shift
    return (weight, bias) if isinstance(behind, nn.Identity) else fold_behind(weight, bias, behind)


def fuse_norms(conv: nn.Conv2d, behind: nn.Module, before: nn.Module | None = None) -> nn.Identity:
    """Fold BatchNorms into `conv` for good, see :func:`folded`.

    Returns:
        What takes their place.

    Raises:
        TypeError: A layer has been replaced, by an adapter for example.
    """
    check_foldable(conv, behind, *([] if before is None else [before]))
    set_weights(conv, *_fold(conv, behind, before))
    return nn.Identity().eval()


def fold_behind(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight (D, C, k, k) and bias (D,) of a convolution with the BatchNorm behind it."""
    scale, shift = _affine(norm)
    return weight * scale[:, None, None, None], shift if bias is None else shift + bias * scale


def fold_before(norm: nn.BatchNorm2d, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (D, C, 1, 1) of a 1x1 convolution with the BatchNorm in front, and what that adds to its bias, (D,)."""
    scale, shift = _affine(norm)
    return weight * scale[:, None, None], weight.flatten(1) @ shift


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale


def set_weights(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> None:
    """Replace the parameters of `conv`, which may not have had a bias."""
    wanted = conv.weight.requires_grad
    conv.weight = nn.Parameter(weight.detach(), wanted)
    conv.bias = None if bias is None else nn.Parameter(bias.detach(), wanted)
