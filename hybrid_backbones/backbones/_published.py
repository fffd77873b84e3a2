"""Reading the shapes of published files."""

import re
from collections.abc import Mapping

from torch import Tensor


def shape_in(state: Mapping[str, Tensor], pattern: str) -> tuple[int, ...]:
    """Shape of the first tensor whose key matches `pattern`; () if there is none."""
    return next((tuple(value.shape) for key, value in state.items() if re.search(pattern, key)), ())
