"""Results of a speed comparison: measured values, statistics, and their table."""

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
# Quartiles of fewer iterations are meaningless.
MIN_ITERATIONS = 5
# Cost of forward and backward in forward passes: gradients of inputs and of weights cost one each.
TRAINING_STEP = 3


@dataclass(frozen=True)
class Settings:
    """How networks are run.

    Args:
        batch_size: Number of images.
        dtype: `fp32`, or `bf16` and `fp16` by autocast.
        memory_format: Memory format of the input, and of networks of other libraries; this package's choose their own.
        train: Time forward and backward instead of inference; a backbone's loss is the sum of its maps' means.
        train_memory: Measure the peak memory of a training step too when inference is timed.
        fuse: Call `fuse()` of this package's backbones; then there is no training step.
        compiler: Backend of `torch.compile`, such as `inductor`, for backbones and for the necks of whole models.
        device: `cpu`, `cuda`, `cuda:1`.
        iterations: Maximum number, after the warm-up.
        seconds: No iteration starts later, once there are `MIN_ITERATIONS`; warm-up ends after a quarter of it.
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
    """Time and memory of one network at one size.

    Attributes:
        size: Height and width in pixels.
        seconds: Time of every iteration; empty if memory ran out.
        inference_mib, train_mib: Peak memory in MiB above that of weights, inputs and the other networks. Training
            includes gradients, but no state of an optimizer. None: unknown.
        macs: Multiply-adds of inference on the batch; None if they cannot be counted.
        machine_flops: Operations per second of a matrix product on this machine, with this dtype and these threads.
        peak_product: What computes that product, see :class:`~.machine.MatrixProduct`.
        error: The step in which memory ran out, or None.
    """

    name: str
    size: tuple[int, int]
    settings: Settings = DEFAULTS
    seconds: tuple[float, ...] = ()
    inference_mib: float | None = None
    train_mib: float | None = None
    macs: int | None = None
    machine_flops: float | None = None
    peak_product: str | None = None
    threads: int = field(default_factory=torch.get_num_threads)
    error: str | None = None

    def quantile(self, q: float) -> float | None:
        """The quantile `q` of the seconds, by linear interpolation; None without iterations."""
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
        """Images per second at the median."""
        return self.settings.batch_size / self.quantile(0.5) if self.seconds else None

    @property
    def share_of_peak(self) -> float | None:
        """Operations per second relative to those of a matrix product; a training step counts as three inferences."""
        if not self.seconds or self.macs is None or self.machine_flops is None:
            return None
        passes = TRAINING_STEP if self.settings.train else 1
        return 2 * passes * self.macs / self.quantile(0.5) / self.machine_flops

    def ratio(self, other: 'Speed', q: float = 0.5) -> float | None:
        """A quantile, by default the median, of the ratios of paired iterations, this one's time over `other`'s."""
        if not self.seconds or not other.seconds:
            return None
        return float(np.quantile([a / b for a, b in zip(self.seconds, other.seconds, strict=True)], q))

    def record(self, last: 'Speed') -> dict[str, Any]:
        """All values for JSON, with the ratio to `last`."""
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
            peak_product=self.peak_product,
            share_of_peak=self.share_of_peak,
            error=self.error,
        )


COLUMNS = (
    'network',
    'size',
    'median s',
    'p10',
    'p90',
    'images/s',
    'MiB',
    'MiB train',
    'x last (p10-p90)',
    'of peak',
    '',
)


def table(rows: Sequence[Speed]) -> list[list[str]]:
    """Cells of a table with `COLUMNS`; ratios are to the last row, and the last column is for remarks."""
    return [_cells(row, rows[-1]) for row in rows]


def _cells(row: Speed, last: Speed) -> list[str]:
    ratios = [row.ratio(last, q) for q in (0.5, 0.1, 0.9)]
    return [
        row.name,
        'x'.join(map(str, row.size)),
        *(_number(row.quantile(q), '.3f') for q in (0.5, 0.1, 0.9)),
        _number(row.images_per_second, '.2f'),
        _number(row.inference_mib, '.0f'),
        _number(row.train_mib, '.0f'),
        '-' if None in ratios else '{:.2f} ({:.2f}-{:.2f})'.format(*ratios),
        _number(row.share_of_peak, '.0%'),
        _remark(row),
    ]


def _number(value: float | None, form: str) -> str:
    return '-' if value is None else format(value, form)


def _remark(row: Speed) -> str:
    remarks = [row.error] if row.error else []
    if row.seconds and not row.stable:
        known = 'too few for an interval' if row.margin is None else f'median within {row.margin:.1%}'
        remarks.append(f'not stable: {len(row.seconds)} iterations, {known}')
    return '; '.join(remarks)


def growth(rows: Sequence[Speed]) -> list[str]:
    """Growth of each network's time and memory with the number of pixels, one line per network.

    Args:
        rows: Results of several sizes.
    """
    lines = []
    for name in dict.fromkeys(row.name for row in rows):
        sizes = [row for row in rows if row.name == name]
        pixels = [math.prod(row.size) for row in sizes]
        measured = {
            'time': [row.quantile(0.5) for row in sizes],
            'memory': [row.inference_mib for row in sizes],
            'memory of a training step': [row.train_mib for row in sizes],
        }
        powers = {what: growth_exponent(pixels, values) for what, values in measured.items()}
        words = [f'{what} grows as pixels^{power:.2f}' for what, power in powers.items() if power is not None]
        lines.append(f'{name}: {", ".join(words) or "fewer than two sizes were measured"}')
    return lines
