"""Find where NaN or infinity comes from, once a loss is not finite; costs nothing before."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


def is_finite(values: Any) -> bool:
    """Whether every tensor and array within nested lists, tuples and dicts is finite."""
    leaves = (torch.as_tensor(leaf) for leaf in tree_leaves(values) if isinstance(leaf, (Tensor, np.ndarray)))
    return all(bool(leaf.isfinite().all()) for leaf in leaves)


def first_nonfinite(model: nn.Module, forward: Callable[[], Any]) -> str:
    """The first of a model's modules that returns NaN or infinity while `forward()` runs, in words.

    Args:
        model: The model. A module counts when it is called as such, not when one of its methods is.
        forward: Runs the model once. It is not compiled and keeps no gradients, but updates BatchNorm statistics.
    """
    for name, parameter in model.named_parameters():
        if not is_finite(parameter):
            return f'the parameter {name} was not finite before this iteration: an earlier update went wrong'
    found = []

    def look(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            if not found and not is_finite(output):
                found.append((name, type(module).__name__, is_finite((args, kwargs))))

        return hook

    handles = [
        module.register_forward_hook(look(name), with_kwargs=True) for name, module in model.named_modules() if name
    ]
    try:
        # In compiled modules no hook is called.
        with torch.no_grad(), torch.compiler.set_stance('force_eager'):
            forward()
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        return 'every module puts out finite values, so that the loss itself divides by zero or overflows'
    name, kind, inputs_finite = found[0]
    if inputs_finite:
        return f'the first module to put out NaN or infinity, from finite inputs, is {name} ({kind})'
    return f'the first module to put out NaN or infinity is {name} ({kind}), whose inputs are not finite already'
