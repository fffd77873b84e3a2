"""Weights of PaddlePaddle, `.pdparams`: a pickle of NumPy arrays by name, read without Paddle and without its code.

Names and the order of axes stay Paddle's; a family's key layout says what they are here.
"""

import codecs
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_RECONSTRUCT = np.zeros(0).__reduce__()[0]
# What a pickled array is made of, and the (name, array) that Paddle writes of a parameter, as NumPy 1 and 2 and both
# Pythons name it.
_PARTS = {
    ('numpy', 'ndarray'): np.ndarray,
    ('numpy', 'dtype'): np.dtype,
    ('numpy.core.multiarray', '_reconstruct'): _RECONSTRUCT,
    ('numpy._core.multiarray', '_reconstruct'): _RECONSTRUCT,
    ('_codecs', 'encode'): codecs.encode,
    ('builtins', 'tuple'): tuple,
    ('__builtin__', 'tuple'): tuple,
}


class _Unpickler(pickle.Unpickler):
    """Makes arrays, and the plain data that they lie in."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PARTS:
            raise pickle.UnpicklingError(f'{module}.{name} is no part of an array')
        return _PARTS[module, name]


def read_params(path: Path) -> dict[str, Tensor]:
    """Tensors of a `.pdparams` file by name.

    Raises:
        pickle.UnpicklingError: It holds something else than arrays and plain data, or is damaged.
    """
    with path.open('rb') as file:
        content = _Unpickler(file, encoding='latin1').load()
    if not isinstance(content, dict):
        raise pickle.UnpicklingError(f'a {type(content).__name__}, where arrays by name were expected')
    # Of (name, array) the array; Paddle's own table of names is left out.
    arrays = {key: value[-1] if isinstance(value, tuple) else value for key, value in content.items()}
    return {key: torch.from_numpy(value) for key, value in arrays.items() if isinstance(value, np.ndarray)}
