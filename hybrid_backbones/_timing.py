"""Seconds of a call, on a CPU or a GPU."""

import time
from collections.abc import Callable


def timed(step: Callable[[], object], device: str) -> float:
    """Seconds of one call, including the work that it started on the device."""
    import torch

    synchronize = torch.cuda.synchronize if device.startswith('cuda') else lambda: None
    synchronize()
    start = time.perf_counter()
    step()
    synchronize()
    return time.perf_counter() - start
