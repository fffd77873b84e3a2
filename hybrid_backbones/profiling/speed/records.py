"""The rows of a speed comparison: what was measured, what follows from it, and how it is shown."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from ..growth import growth_exponent

MEMORY_FORMATS = {'channels_last': torch.channels_last, 'contiguous': torch.contiguous_format}
DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
STABLE = 0.02
# Fewer have no quartiles to speak of.
MIN_ITERATIONS = 5
# The backward pass computes gradients of inputs and of weights, each as much as the forward pass.
TRAINING_STEP = 3


@dataclass(frozen=True)
class Settings:
    """How networks are run.

    Args:
        batch_size: Images.
        dtype: `fp32`, or `bf16` and `fp16` by autocast.
        memory_format: Of the input and the weights of others' networks; ours choose their own.
        train: Time forward and backward, for a backbone through the sum of its maps' means, instead of inference.
        train_memory: Measure the peak of a training step too when inference is timed.
        fuse: Fold what folds for inference in our backbones; there is no training step then.
        compiler: Backend of `torch.compile`, as `inductor`, for the backbone, and the neck of a whole model.
        device: `cpu`, `cuda`, `cuda:1`.
        iterations: At most, after `WARM_UP`.
        seconds: No iteration starts later, once there are `MIN_ITERATIONS`; warming up ends at a quarter of it.
    """

    batch_size: int = 1
    dtype: str = 'fp32'
    memory_format: str = 'channels_last'
    train: bool = False
    train_memory: bool = True
    fuse: bool = False
    compiler: str | None = None
    device: str = 'cpu'
    iterations: int = 50
    seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.fuse and self.train:
            raise ValueError('fuse folds layers for inference, and train times training: choose one')
        if self.iterations < 1 or self.batch_size < 1:
            raise ValueError(f'expected one iteration and image or more, got {self.iterations} and {self.batch_size}')


DEFAULTS = Settings()


@dataclass(frozen=True)
class Speed:
    """What one network took at one size.

    Attributes:
        size: Height and width in pixels.
        seconds: Of every iteration; none when memory ran out.
        inference_mib, train_mib: Peak of memory over what was held before, which is weights, inputs and the other
            networks, in MiB. Training includes gradients and no state of an optimizer. None: unknown.
        macs: Multiply-adds of inference on the batch; None for what cannot be counted.
        machine_flops: Operations per second of the machine's own matrix product at this dtype and these threads.
        error: In which step memory ran out, or None.
    """

    name: str
    size: tuple[int, int]
    settings: Settings = DEFAULTS
    seconds: tuple[float, ...] = ()
    inference_mib: float | None = None
    train_mib: float | None = None
    macs: int | None = None
    machine_flops: float | None = None
    threads: int = field(default_factory=torch.get_num_threads)
    error: str | None = None

    def quantile(self, q: float) -> float | None:
        """Seconds that a share `q` of the iterations stayed below, by linear interpolation."""
        return float(np.quantile(self.seconds, q)) if self.seconds else None

    @property
    def margin(self) -> float | None:
        """Half the confidence interval of the median, as a share of it; None: too few iterations."""
        if len(self.seconds) < MIN_ITERATIONS:
            return None
        spread = self.quantile(0.75) - self.quantile(0.25)
        return 1.57 * spread / len(self.seconds) ** 0.5 / self.quantile(0.5)

    @property
    def stable(self) -> bool:
        """Whether the median's interval is within `STABLE`."""
        return self.margin is not None and self.margin <= STABLE

    @property
    def images_per_second(self) -> float | None:
        """Batches per second times images, at the median."""
        return self.settings.batch_size / self.quantile(0.5) if self.seconds else None

    @property
    def share_of_peak(self) -> float | None:
        """Operations per second over the machine's own of its matrix product; a training step counts three times."""
        if not self.seconds or self.macs is None or self.machine_flops is None:
            return None
        passes = TRAINING_STEP if self.settings.train else 1
        return 2 * passes * self.macs / self.quantile(0.5) / self.machine_flops

    def ratio(self, other: 'Speed', q: float = 0.5) -> float | None:
        """How many times longer than `other`: a quantile, the median by default, over the paired iterations."""
        if not self.seconds or not other.seconds:
            return None
        return float(np.quantile([a / b for a, b in zip(self.seconds, other.seconds, strict=True)], q))

    def record(self, last: 'Speed') -> dict[str, Any]:
        """All of it for JSON, with the ratio to `last`."""
        settings = asdict(self.settings)
        settings = {key: settings[key] for key in settings if key not in ('iterations', 'seconds', 'train_memory')}
        return dict(
            name=self.name,
            size=self.size,
            **settings,
            threads=self.threads,
            iterations=len(self.seconds),
            stable=self.stable,
            margin=self.margin,
            median_s=self.quantile(0.5),
            p10_s=self.quantile(0.1),
            p90_s=self.quantile(0.9),
            images_per_s=self.images_per_second,
            inference_mib=self.inference_mib,
            train_mib=self.train_mib,
            over=last.name,
            ratio=self.ratio(last),
            ratio_p10=self.ratio(last, 0.1),
            ratio_p90=self.ratio(last, 0.9),
            macs=self.macs,
            machine_flops=self.machine_flops,
            share_of_peak=self.share_of_peak,
            error=self.error,
        )


def table(rows: Sequence[Speed]) -> list[str]:
    """Lines for a terminal, with ratios to the last row."""
    width = max(len('network'), *(len(row.name) for row in rows)) + 1
    titles = ('size', 'median s', 'p10', 'p90', 'images/s', 'MiB', 'MiB train', 'x last (p10-p90)', 'of peak')
    lines = [f'{"network":{width}}' + ''.join(f'{t:>{w}}' for t, w in zip(titles, _WIDTHS, strict=True))]
    last = rows[-1]
    for row in rows:
        ratios = [row.ratio(last, q) for q in (0.5, 0.1, 0.9)]
        cells = [
            'x'.join(map(str, row.size)),
            *(_number(row.quantile(q), '.3f') for q in (0.5, 0.1, 0.9)),
            _number(row.images_per_second, '.2f'),
            _number(row.inference_mib, '.0f'),
            _number(row.train_mib, '.0f'),
            '-' if None in ratios else '{:.2f} ({:.2f}-{:.2f})'.format(*ratios),
            _number(row.share_of_peak, '.0%'),
        ]
        cells = ''.join(f'{cell:>{w}}' for cell, w in zip(cells, _WIDTHS, strict=True))
        lines.append(f'{row.name:{width}}{cells}{_remark(row)}')
    return lines


_WIDTHS = (11, 10, 8, 8, 10, 8, 11, 19, 9)


def _number(value: float | None, form: str) -> str:
    return '-' if value is None else format(value, form)


def _remark(row: Speed) -> str:
    remarks = [row.error] if row.error else []
    if row.seconds and not row.stable:
        known = 'too few for an interval' if row.margin is None else f'median within {row.margin:.1%}'
        remarks.append(f'not stable: {len(row.seconds)} iterations, {known}')
    return '  ' + '; '.join(remarks) if remarks else ''


def growth(rows: Sequence[Speed]) -> list[str]:
    """How time and memory of each network grow with the pixels of an image, in words.

    Args:
        rows: Of several sizes.
    """
    lines = []
    for name in dict.fromkeys(row.name for row in rows):
        mine = [row for row in rows if row.name == name]
        pixels = [math.prod(row.size) for row in mine]
        measured = {
            'time': [row.quantile(0.5) for row in mine],
            'memory': [row.inference_mib for row in mine],
            'memory of a training step': [row.train_mib for row in mine],
        }
        powers = {what: growth_exponent(pixels, values) for what, values in measured.items()}
        words = [f'{what} grows as pixels^{power:.2f}' for what, power in powers.items() if power is not None]
        lines.append(f'{name}: {", ".join(words) or "fewer than two sizes were measured"}')
    return lines
