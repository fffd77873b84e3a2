"""Which matrix product a CPU computes fastest, by a measurement of milliseconds once per machine and class of shapes.

`$HYBRID_BACKBONES_PRODUCTS` is `measured` by default; `plain` and `packed` choose for all shapes without a measurement.
"""

import functools
import json
import logging
import math
import os
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from .._files import cache_folder, write_whole
from .packed import pack, packed_add_linear, packed_linear

POLICIES = 'measured', 'plain', 'packed'
# Multiply-adds below which a product is not worth a choice.
_SMALLEST = 2**24
# Multiply-adds of the product that is measured, in hundredths of a second. Narrow ones have as many rows as a large
# map, which does not fit a processor's cache either.
_LARGEST = 2**30
_REPETITIONS = 3
# What a packed product must take at most of the time of the plain one: it is never to be slower.
_WORTHWHILE = 0.95

# Gives the plain and the packed step for a shape, a dtype and a kind.
Steps = Callable[[tuple[int, int, int], torch.dtype, str], tuple[Callable[[], object], Callable[[], object]]]


def prefers_packed(rows: int, inputs: int, outputs: int, dtype: torch.dtype, kind: str) -> bool:
    """Whether packed weights are faster for a product of (rows, inputs) and (inputs, outputs).

    Args:
        kind: What is done with the result: `none`, `gelu` or `silu` is applied, or a residual sum, `add`.

    Raises:
        ValueError: Unknown policy in the environment.
    """
    return prefers(kind, (rows, inputs, outputs), dtype, product_steps)


def prefers(kind: str, shape: tuple[int, int, int], dtype: torch.dtype, steps: Steps) -> bool:
    """Whether the packed step is faster for a shape, as the policy says.

    Args:
        kind: Name of the computation.
        shape: Three numbers whose product are its multiply-adds, the number of rows, which repeat the same, first.
        steps: Gives what is to be measured.

    Raises:
        ValueError: Unknown policy in the environment.
    """
    policy = os.environ.get('HYBRID_BACKBONES_PRODUCTS', 'measured')
    if policy not in POLICIES:
        raise ValueError(f'HYBRID_BACKBONES_PRODUCTS={policy!r}; choose one of {", ".join(POLICIES)}')
    rows, inputs, outputs = shape
    if policy != 'measured' or rows * inputs * outputs < _SMALLEST:
        return policy == 'packed'
    inputs, outputs = _class_of(inputs), _class_of(outputs)
    shape = min(_class_of(rows), max(512, _LARGEST // (inputs * outputs))), inputs, outputs
    return _chosen(shape, dtype, kind, torch.get_num_threads(), steps)


def _class_of(length: int) -> int:
    """The nearest power of two."""
    return 2 ** round(math.log2(length))


@functools.cache
def _chosen(shape: tuple[int, int, int], dtype: torch.dtype, kind: str, threads: int, steps: Steps) -> bool:
    file = cache_folder() / 'products.json'
    key = ' '.join([_machine(), str(dtype), f'{threads} threads', 'x'.join(map(str, shape)), kind])
    known = _read(file)
    if key not in known:
        ratio = measure(shape, dtype, kind, steps)
        # What another process has found in the meantime stays: runs that resume repeat their products.
        known = {key: round(ratio, 3)} | _read(file)
        try:
            write_whole(file, json.dumps(known, indent=1))
        except OSError as error:
            logging.getLogger(__name__).info('the choice of matrix products is not kept in %s: %s', file, error)
    return known[key] <= _WORTHWHILE


def _read(file: Path) -> dict[str, float]:
    try:
        return json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}


@functools.cache
def _machine() -> str:
    """What a measurement holds for: the processor and the build of PyTorch."""
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8')
    except OSError:
        lines = ''
    found = dict(re.findall(r'^(model name|cpu family|model)\s*: (.*)$', lines, re.MULTILINE))
    return f'{" ".join(found.values()) or platform.processor()} torch {torch.__version__}'


def product_steps(
    shape: tuple[int, int, int], dtype: torch.dtype, kind: str
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Both ways of a product with a bias, of rows, inputs and outputs; `kind` as in :func:`prefers_packed`."""
    rows, inputs, outputs = shape
    x, weight = torch.ones(rows, inputs, dtype=dtype), torch.ones(outputs, inputs, dtype=dtype)
    bias, packed = torch.ones(outputs, dtype=dtype), pack(weight)
    if kind == 'add':
        addend = torch.ones(rows, outputs, dtype=dtype)
        return (
            lambda: addend.addmm_(x, weight.t()).add_(bias),
            lambda: packed_add_linear(addend, x, packed, bias),
        )
    activate = {'none': torch.Tensor.detach, 'gelu': torch.ops.aten.gelu_, 'silu': torch.ops.aten.silu_}[kind]
    return lambda: activate(F.linear(x, weight, bias)), lambda: packed_linear(x, packed, bias, kind)


@torch.inference_mode()
def measure(shape: tuple[int, int, int], dtype: torch.dtype, kind: str, steps: Steps = product_steps) -> float:
    """Time of the packed step over that of the plain one: the least of a few, in turn.

    Args:
        shape: As in :func:`prefers`.
        dtype: Of all factors.
        kind: Name of the computation.
        steps: Gives both.
    """
    with torch.autocast('cpu', enabled=False):
        both = steps(shape, dtype, kind)
        seconds = [[_seconds(step) for step in both] for _ in range(_REPETITIONS + 1)][1:]
    plain, fast = (min(column) for column in zip(*seconds, strict=True))
    return fast / plain


def _seconds(step: Callable[[], object]) -> float:
    # What other processes take away does not count; threads that wait for each other would.
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    step()
    return clock() - start
