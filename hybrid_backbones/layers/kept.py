"""Results that follow from the weights of layers alone, kept beside the layers while the weights do not change."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .inference import state_of

T = TypeVar('T')
# By owner: sources, their states, and the result. The sources are held, so that no other tensor takes their address.
_kept: WeakKeyDictionary[nn.Module, tuple[list, list, object]] = WeakKeyDictionary()


def kept(owner: nn.Module, sources: Sequence[Tensor | None], make: Callable[[], T]) -> T:
    """`make()` in fp32 and without a graph, or what it returned before if no source has changed since.

    With gradients or in a compiled graph nothing is kept. See also :func:`forget_kept`.

    Args:
        owner: Module that the result goes with; one result each.
        sources: All tensors that the result follows from.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return make()
    states = [None if tensor is None else state_of(tensor) for tensor in sources]
    if owner not in _kept or _kept[owner][1] != states:
        device = next(tensor.device.type for tensor in sources if tensor is not None)
        # Neither inference tensors nor half precision: what is kept may later be used outside both modes.
        with torch.inference_mode(False), torch.no_grad(), _without_autocast(device):
            _kept[owner] = list(sources), states, make()
    return _kept[owner][2]


def _without_autocast(device: str) -> AbstractContextManager:
    supported = torch.amp.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if supported else nullcontext()


def forget_kept(network: nn.Module) -> None:
    """Make anew from now on. Any call of `train()` or `eval()` does so: averaged weights are swapped in through
    `.data`, which no version counter sees, but not without going to eval mode.
    """
    for module in network.modules():
        _kept.pop(module, None)
