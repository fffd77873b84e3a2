"""What activation checkpointing computes again, without counting the batch a second time."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def forward_and_recomputation(block: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Contexts of the two forward passes of `block`, for `context_fn` of `torch.utils.checkpoint.checkpoint`."""
    return nullcontext(), _discarded_statistics(block)


def discard_recomputed_statistics(network: nn.Module) -> None:
    """The same for every BatchNorm of a network whose code calls `checkpoint` without contexts."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(_start_if_recomputed)
            module.register_forward_hook(_restore, always_call=True)


@contextmanager
def _discarded_statistics(block: nn.Module) -> Iterator[None]:
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    kept = [_use_copies(norm) for norm in norms]
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)


def _use_copies(norm: _BatchNorm) -> dict[str, Tensor | None]:
    """Let BatchNorm update copies of its running statistics; returns the statistics.

    As many tensors are saved for the backward pass as in the first forward pass, which checkpointing compares.
    """
    kept = dict(norm._buffers)
    norm._buffers.update({key: None if value is None else value.clone() for key, value in kept.items()})
    return kept


def _start_if_recomputed(norm: _BatchNorm, _: tuple) -> None:
    # As torch.utils.checkpoint finds out whether a backward pass is running. A compiler recomputes no updates.
    if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
        norm._kept_statistics = _use_copies(norm)


def _restore(norm: _BatchNorm, *_: object) -> None:
    if not torch.compiler.is_compiling():
        norm._buffers.update(norm.__dict__.pop('_kept_statistics', {}))
