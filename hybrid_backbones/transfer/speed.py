"""Time and memory of backbones, side by side in one process.

Machines are shared and noisy, so only ratios of interleaved runs mean anything: every iteration runs each network once,
and the ratio is the median of the iterations' own ratios.
"""

import ast
import ctypes
import re
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..registry import create_backbone, list_backbones
from .as_published import FAMILIES, lay_out_in_full

MEMORY_FORMATS = {'channels_last': torch.channels_last, 'contiguous': torch.contiguous_format}
# A CPU's allocator has all its pages after three runs.
WARM_UP = 3
DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


@dataclass(frozen=True)
class Speed:
    """Seconds of every iteration, and the peak of memory in MiB over what was held before it (None: unknown)."""

    name: str
    seconds: tuple[float, ...]
    peak_mib: float | None

    def quantile(self, q: float) -> float:
        """Seconds that a share `q` of the iterations stayed below, by linear interpolation."""
        return float(torch.tensor(self.seconds, dtype=torch.float64).quantile(q))

    def ratio(self, other: 'Speed') -> float:
        """How many times longer than `other`: median over the paired iterations."""
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds, strict=True))


class _HiddenStates(nn.Module):
    """Maps of a network of transformers, which returns them by name and on request."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.network(x, output_hidden_states=True).hidden_states


def _parse(name: str) -> tuple[str, dict[str, Any]]:
    """`deit_s` and its options, of `deit_s:window_size=14,pyramid=None`.

    Raises:
        ValueError: An option without a value, or with one that is no Python literal.
    """
    name, *rest = name.split(':', 1)
    options = dict(part.partition('=')[::2] for part in ','.join(rest).split(',') if part)
    try:
        return name, {key: ast.literal_eval(value) for key, value in options.items()}
    except (SyntaxError, ValueError) as error:
        raise ValueError(f'options of {name}: expected NAME=VALUE,..., got {rest[0]!r}') from error


def _ours(name: str, fuse: bool) -> nn.Module:
    name, options = _parse(name)
    network = create_backbone(name, **options)
    return network.fuse() if fuse else network


def create_network(name: str, fuse: bool = False, size: tuple[int, int] | None = None) -> nn.Module:
    """A backbone of ours, or timm's feature pyramid of that name (with or without `timm:` in front).

    Ours take options: `deit_s:window_size=14`. `plain:NAME` is ours laid out in full, as its authors compute it, for
    BoTNet and CeiT. `transformers:TYPE` is that library's network of a model type at its default configuration:
    `transformers:cvt` is CvT-13. Networks of timm that serve one size are built for `size`.

    Raises:
        ValueError: None of them has it.
    """
    if name.split(':')[0] in list_backbones():
        return _ours(name, fuse)
    library, _, rest = name.partition(':')
    if library == 'plain' and rest.split(':')[0] in [n for family in FAMILIES for n in list_backbones(f'{family}*')]:
        return lay_out_in_full(_ours(rest, fuse=False))
    if library == 'transformers':
        from transformers import AutoConfig, AutoModel

        return _HiddenStates(AutoModel.from_config(AutoConfig.for_model(rest)))
    import timm

    plain = name.removeprefix('timm:')
    if plain not in timm.list_models():
        raise ValueError(f'{name!r} is neither one of {", ".join(list_backbones())} nor a model of timm')
    return _of_timm(plain, size)


def _of_timm(name: str, size: tuple[int, int] | None) -> nn.Module:
    import timm

    options = dict(features_only=True, pretrained=False)
    try:
        return timm.create_model(name, img_size=size, **options)
    except TypeError:  # of any size as it is
        return timm.create_model(name, **options)


def compare(
    names: Sequence[str],
    size: tuple[int, int],
    batch_size: int = 1,
    dtype: str = 'fp32',
    memory_format: str = 'channels_last',
    train: bool = False,
    fuse: bool = False,
    device: str = 'cpu',
    iterations: int = 7,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Speed]:
    """Run networks in turn on one image batch.

    Args:
        names: Networks, see :func:`create_network`.
        size: Height and width of the images in pixels.
        dtype: `fp32`, or `bf16` and `fp16` by autocast.
        memory_format: Of the input and the weights of others' networks; ours choose their own.
        train: Forward and backward through the sum of all maps, instead of inference.
        fuse: Fold what folds for inference in ours.
        iterations: Timed ones, after `WARM_UP`.
        progress: Called with a line per network and iteration.
    """
    layout = MEMORY_FORMATS[memory_format]
    image = torch.randn(batch_size, 3, *size, device=device).contiguous(memory_format=layout)
    steps = []
    for name in names:
        network = create_network(name, fuse, size).to(device, memory_format=layout).train(train)
        steps.append(_step(network, image, DTYPES[dtype], train))
    for i in range(WARM_UP):
        for name, step in zip(names, steps, strict=True):
            progress(f'warm-up {i + 1}/{WARM_UP} {name}: {_timed(step, device):.3f} s')
    seconds: list[list[float]] = [[] for _ in names]
    for i in range(iterations):
        for name, step, times in zip(names, steps, seconds, strict=True):
            times.append(_timed(step, device))
            progress(f'{i + 1}/{iterations} {name}: {times[-1]:.3f} s')
    peaks = [_peak(step, device) for step in steps]
    return [Speed(n, tuple(t), p) for n, t, p in zip(names, seconds, peaks, strict=True)]


def _step(network: nn.Module, image: Tensor, dtype: torch.dtype, train: bool) -> Callable[[], None]:
    def autocast():
        return nullcontext() if dtype == torch.float32 else torch.autocast(image.device.type, dtype)

    def infer() -> None:
        with torch.inference_mode(), autocast():
            network(image)

    def forward_backward() -> None:
        with autocast():
            maps = network(image)
        sum(m.float().mean() for m in maps).backward()
        network.zero_grad(set_to_none=True)

    return forward_backward if train else infer


def _timed(step: Callable[[], None], device: str) -> float:
    synchronize = torch.cuda.synchronize if device.startswith('cuda') else lambda: None
    synchronize()
    start = time.perf_counter()
    step()
    synchronize()
    return time.perf_counter() - start


def _peak(step: Callable[[], None], device: str) -> float | None:
    """MiB over what was held before; on a CPU from Linux's high-water mark of resident memory, None elsewhere."""
    if device.startswith('cuda'):
        base = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return (torch.cuda.max_memory_allocated() - base) / 2**20
    try:
        ctypes.CDLL('libc.so.6').malloc_trim(0)  # what earlier runs freed must not count as held
        Path('/proc/self/clear_refs').write_text('5')  # resets the high-water mark
    except (OSError, AttributeError):
        return None
    base = _status_kib('VmRSS')
    step()
    return (_status_kib('VmHWM') - base) / 2**10


def _status_kib(field: str) -> int:
    return int(re.search(rf'{field}:\s+(\d+)', Path('/proc/self/status').read_text())[1])
