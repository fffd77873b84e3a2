"""When inference may read the weights of layers instead of calling them: the one place that decides it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _torch_module

# Layers whose forward pass is known here. Adapters, quantizers, parametrizations and FSDP replace or subclass them.
_KNOWN: set[type] = {nn.Linear, nn.Conv2d, nn.LayerNorm, nn.BatchNorm2d, nn.SyncBatchNorm, nn.GELU, nn.Identity}


def known_layer(cls: type[nn.Module]) -> type[nn.Module]:
    """Class decorator: layers of exactly this class may be read in inference, if those within them may."""
    _KNOWN.add(cls)
    return cls


_watched = ContextVar('global hooks watch layers', default=True)


@contextmanager
def unwatched() -> Iterator[None]:
    """For profilers, whose global hooks only tell which module runs, and which count what inference executes."""
    token = _watched.set(False)
    try:
        yield
    finally:
        _watched.reset(token)


def may_read(*layers: nn.Module) -> bool:
    """Whether a fast path may read the weights of `layers` in place of calling them.

    Only without gradients, outside compilers, exporters and tracers, and where every layer is exactly of a class that a
    family builds: no adapter, quantized weight or parametrization, no hook of any kind.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    watched = _watched.get() and (_torch_module._global_forward_pre_hooks or _torch_module._global_forward_hooks)
    return not watched and all(map(_is_plain, layers))


def _is_plain(layer: nn.Module) -> bool:
    return (
        type(layer) in _KNOWN
        and not has_hooks(layer)
        and 'forward' not in vars(layer)
        and all(parameter is None or type(parameter) is nn.Parameter for parameter in layer._parameters.values())
        and all(map(_is_plain, layer.children()))
    )


def state_of(tensor: Tensor) -> tuple:
    """What differs once `tensor` has been changed, moved or replaced; what is written through `.data` is not seen."""
    version = None if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), version, tensor.dtype, tensor.device


def check_foldable(*layers: nn.Module) -> None:
    """Refuse to fold layers that have been replaced.

    Raises:
        TypeError: A layer of a class that no family builds, such as an adapter.
    """
    for layer in layers:
        if type(layer) not in _KNOWN:
            raise TypeError(
                f'fuse() folds layers as the backbone built them, but found {type(layer).__name__} in place of one: '
                'merge adapters first (merge_and_unload() of peft), or fuse before layers are replaced'
            )


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody watches or changes what `module` computes."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )
