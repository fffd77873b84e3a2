"""Intermediate results that are cheap to compute again in the backward pass, and so are not kept for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_allowed = ContextVar('recomputation allowed', default=True)


@contextmanager
def recomputed(tensor: Tensor, make: Callable[[], Tensor]) -> Iterator[None]:
    """Layers called inside save nothing of `tensor` for their backward pass, which calls `make` for it instead.

    For element-wise results of tensors that are saved anyway: it takes their memory away for next to no time. The
    layers are called as ever, and may be adapters or carry hooks.

    Args:
        tensor: Result of `make`, held by the caller while the layers run.
        make: Computes it again, laid out in memory as it was.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or not _allowed.get():
        yield
        return
    address = tensor.untyped_storage().data_ptr()

    def pack(saved: Tensor) -> Tensor | tuple:
        if saved.untyped_storage().data_ptr() != address:
            return saved
        return saved.size(), saved.stride(), saved.storage_offset()

    def unpack(kept: Tensor | tuple) -> Tensor:
        return kept if isinstance(kept, Tensor) else make().as_strided(*kept)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield


@contextmanager
def without_recomputation() -> Iterator[None]:
    """For activation checkpointing, which recomputes whole blocks: the inner recomputation would only hide from it."""
    token = _allowed.set(False)
    try:
        yield
    finally:
        _allowed.reset(token)
