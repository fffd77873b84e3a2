"""Properties of the machine: available memory, peak memory of a step, and the rate of matrix products."""

import ctypes
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from ..._timing import timed
from ...layers.packed import is_available, pack, packed_linear

# The last one is oneDNN's, if there is no memory for a layer's code.
_OUT_OF_MEMORY = re.compile(r"can't allocate memory|not enough memory|bad_alloc|could not create a primitive$")
# Shorter products are dominated by the overhead of the call.
_PRODUCT_SECONDS = 0.02
# Files of control groups, version 2 and version 1: limit and usage.
_GROUPS = {
    'memory.max': 'memory.current',
    'memory/memory.limit_in_bytes': 'memory/memory.usage_in_bytes',
}


class MatrixProduct:
    """The fastest product of two square matrices, which are large enough for the device to reach its peak rate.

    Attributes:
        operations: Floating-point operations of a call; a multiply-add counts as two.
        library: What computes it fastest here: `torch.mm`, `oneDNN` with packed weights, or `NumPy`.
    """

    def __init__(self, dtype: torch.dtype, device: str) -> None:
        for side in (512, 1024, 2048, 4096, 8192):
            self.operations = 2 * side**3
            self._factor = torch.randn(side, side, device=device).to(dtype)
            self._product = torch.empty_like(self._factor)
            self._multiply()  # warm-up: starts threads and chooses the kernel
            if timed(self._multiply, device) > _PRODUCT_SECONDS:
                break
        self._products = dict(self._candidates())
        seconds = {
            library: min(timed(product, device) for _ in range(3)) for library, product in self._products.items()
        }
        self.library = min(seconds, key=seconds.get)

    def __call__(self) -> None:
        self._products[self.library]()

    def _multiply(self) -> None:
        torch.mm(self._factor, self._factor, out=self._product)

    def _candidates(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """Names of libraries, and their products."""
        factor, product = self._factor, self._product
        yield 'torch.mm', self._multiply
        if not factor.is_cpu:
            return
        if is_available(factor.dtype):
            weight = pack(factor.t())
            yield 'oneDNN', lambda: packed_linear(factor, weight, None)
        # NumPy's library has a thread for every processor.
        if factor.dtype == torch.float32 and torch.get_num_threads() == available_processors():
            yield 'NumPy', lambda: np.matmul(factor.numpy(), factor.numpy(), out=product.numpy())


def available_processors() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


def peak_memory(step: Callable[[], object], device: str) -> float | None:
    """Peak memory of a step in MiB above the memory in use before; on a CPU, by Linux's peak resident set size.

    None on other systems than Linux.
    """
    if device.startswith('cuda'):
        base = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return (torch.cuda.max_memory_allocated() - base) / 2**20
    try:
        ctypes.CDLL('libc.so.6').malloc_trim(0)  # memory that was freed earlier must not count as used
        Path('/proc/self/clear_refs').write_text('5')  # resets the peak
    except (OSError, AttributeError):
        return None
    base = _status_bytes('VmRSS')
    step()
    return (_status_bytes('VmHWM') - base) / 2**20


def out_of_memory(error: Exception) -> str | None:
    """A description of an out-of-memory error; None for other errors."""
    text = str(error).strip()
    if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not _OUT_OF_MEMORY.search(text):
        return None
    wanted = re.search(r'ried to allocate ([\d.]+) (\w+)', text)
    if not wanted:
        return f'out of memory ({text.splitlines()[0] if text else type(error).__name__})'
    amount, unit = wanted.groups()
    return (
        f'out of memory, {float(amount) / 2**20:.0f} MiB more wanted'
        if unit == 'bytes'
        else (f'out of memory, {amount} {unit} more wanted')
    )


@contextmanager
def within_available_memory(device: str) -> Iterator[None]:
    """Limit allocations on the CPU to the available memory, so that they raise before Linux kills the process.

    A lower limit that the process already has is kept. Allocations on a GPU raise by themselves.
    """
    if not device.startswith('cpu') or sys.platform != 'linux':
        yield
        return
    import resource

    old, hard = resource.getrlimit(resource.RLIMIT_DATA)
    new = _status_bytes('VmData') + available_memory()
    limits = [limit for limit in (old, hard, new) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (old, hard))


def available_memory() -> int:
    """Bytes that this process can still allocate on Linux, within the limit of its container if it has one."""
    found = [_kib('/proc/meminfo', 'MemAvailable')]
    for limit, used in _GROUPS.items():
        limit, used = (Path('/sys/fs/cgroup') / name for name in (limit, used))
        if not limit.is_file():
            continue
        statistics = used.with_name('memory.stat').read_text()
        # Cached files are dropped before the limit applies.
        cached = int(re.search(r'^(?:total_)?inactive_file (\d+)', statistics, re.MULTILINE)[1])
        if (most := limit.read_text().strip()) != 'max':
            found.append(int(most) - int(used.read_text()) + cached)
    return min(found)


def _status_bytes(field: str) -> int:
    return _kib('/proc/self/status', field)


def _kib(file: str, field: str) -> int:
    """Bytes of a field that Linux states in kB."""
    return int(re.search(rf'^{field}:\s+(\d+) kB', Path(file).read_text(), re.MULTILINE)[1]) * 1024
