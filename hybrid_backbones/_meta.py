"""Networks without values: names and shapes at next to no cost."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

# What initialisation is made of. On the meta device it costs most of the time of building, and does nothing.
_FILLING = {
    init.constant_,
    init.kaiming_uniform_,
    init.normal_,
    init.uniform_,
    Tensor.add_,
    Tensor.clamp_,
    Tensor.copy_,
    Tensor.div_,
    Tensor.erfinv_,
    Tensor.fill_,
    Tensor.mul_,
    Tensor.normal_,
    Tensor.sub_,
    Tensor.uniform_,
    Tensor.zero_,
}


class _WithoutFilling(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FILLING:
            filled = args[0] if args else kwargs['tensor']
            if filled.is_meta:
                return filled
        return func(*args, **kwargs)


@contextmanager
def meta_device() -> Iterator[None]:
    """Tensors made inside are on the meta device, and their initialisation is skipped."""
    with torch.device('meta'), _WithoutFilling():
        yield
