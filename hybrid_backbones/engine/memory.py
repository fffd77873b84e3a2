"""Keeping freed memory in the process: on a CPU, fresh pages cost more than the arithmetic on them."""

import ctypes
import platform

import torch

# Parameter numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to reuse freed blocks rather than return them to the system.

    Large blocks otherwise come from `mmap` and fault in page by page at every allocation. Call it before the first
    large allocation; the process then stays at its peak size. Does nothing off glibc or where CUDA is used.

    Returns:
        Whether the allocator was set.
    """
    if platform.libc_ver()[0] != 'glibc' or torch.cuda.is_available():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
