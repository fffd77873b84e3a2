"""Time and memory of backbones and of whole models, measured side by side in one process.

On shared and noisy machines only ratios of interleaved runs are meaningful: every iteration runs each network once, and
the ratio is the median of the iterations' ratios. Each iteration also multiplies two matrices, for the rate that the
machine itself reaches.

Iterations end when the median of every network is stable, that is when its confidence interval of about 95 % is within
2 % of it, or after `Settings.iterations` or `Settings.seconds`. The half width of the interval is 1.57 times the
interquartile range over the square root of the number of iterations (McGill, Tukey and Larsen 1978).
"""

import gc
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..._timing import timed
from ...engine.compiling import check_compiler, compile_parts
from ..cost import UnknownOperatorError, backbone_cost, count_cost
from ..subjects import create_network
from .machine import MatrixProduct, out_of_memory, peak_memory, within_available_memory
from .records import DEFAULTS, DTYPES, MEMORY_FORMATS, MIN_ITERATIONS, Settings, Speed
from .whole_model import WholeModel, is_config

# Iterations; a CPU's allocator has all its pages after three.
WARM_UP = 3
T = TypeVar('T')


def compare(
    networks: Sequence[str | nn.Module],
    size: tuple[int, int],
    settings: Settings = DEFAULTS,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Speed]:
    """Run networks in turn on one image batch.

    A network that runs out of memory is dropped, with the error in its row; the others continue.

    Args:
        networks: Names, see :func:`~..subjects.create_network`, configs, see :class:`~.whole_model.WholeModel`, or
            modules that take an image batch and return maps; a module's memory format and mode are changed.
        size: Height and width of the images in pixels.
        settings: How they are run.
        progress: Called with a line per network and iteration.

    Raises:
        FileNotFoundError, ValueError: No such network or config.
        RuntimeError: This machine cannot compile.
    """
    if settings.compiler:
        check_compiler(settings.compiler)
        torch.compiler.reset()  # otherwise the second size is compiled as dynamic, unlike the first
    product = MatrixProduct(DTYPES[settings.dtype], settings.device)
    runs = [_Run(network, size, settings) for network in networks]
    with within_available_memory(settings.device):
        for run in runs:
            run.attempt('building', run.build)
            run.attempt('inference', run.prepare)
        fastest = _interleave(runs, product, settings, progress)
        for run in runs:
            run.measure_memory()
    return [run.result(product.operations / fastest, product.library) for run in runs]


def profile(network: str | nn.Module, size: tuple[int, int], settings: Settings = DEFAULTS) -> Speed:
    """Measure one network alone, see :func:`compare`."""
    return compare([network], size, settings)[0]


def _interleave(
    runs: 'Sequence[_Run]', product: MatrixProduct, settings: Settings, progress: Callable[[str], None]
) -> float:
    """Run all in turn until they are stable; returns the least seconds of the matrix product."""
    stage = 'training step' if settings.train else 'inference'
    fastest = float('inf')

    def once(label: str) -> None:
        nonlocal fastest
        fastest = min(fastest, timed(product, settings.device))
        for run in runs:
            if (seconds := run.attempt(stage, run.time)) is None:
                run.seconds.clear()  # it has fewer iterations than the others
                continue
            run.seconds.append(seconds)
            progress(f'{label} {run.name}: {seconds:.3f} s')

    begin = time.perf_counter()
    for i in range(WARM_UP):
        once(f'warm-up {i + 1}/{WARM_UP}')
        if time.perf_counter() - begin > settings.seconds / 4:
            break
    for run in runs:
        run.seconds.clear()
    begin = time.perf_counter()
    for i in range(settings.iterations):
        once(f'{i + 1}')
        if i + 1 >= min(MIN_ITERATIONS, settings.iterations) and (
            all(run.error or run.result().stable for run in runs) or time.perf_counter() - begin > settings.seconds
        ):
            break
    return fastest


class _Run:
    """The measurement of one network in a comparison."""

    def __init__(self, network: str | nn.Module, size: tuple[int, int], settings: Settings) -> None:
        self.network, self.size, self.settings = network, size, settings
        self.name = network if isinstance(network, str) else type(network).__name__
        self.seconds: list[float] = []
        self.module: nn.Module | None = None
        self.inputs: Any = None
        self.macs: int | None = None
        self.peaks: dict[str, float | None] = {}
        self.error: str | None = None

    def attempt(self, stage: str, action: Callable[[], T]) -> T | None:
        """The action's result; None if memory has run out, after freeing the network's memory."""
        if self.error:
            return None
        try:
            return action()
        except (RuntimeError, MemoryError, ValueError) as error:
            problem = out_of_memory(error) or _too_few_images(error)
            if problem is None:
                raise
            self.error = f'{stage}: {problem}'
        # After the handler, when the traceback no longer references the step's tensors.
        if self.module is not None:
            self.module.zero_grad(set_to_none=True)  # the caller may keep a reference
        self.module = self.network = self.inputs = None
        gc.collect()
        if self.settings.device.startswith('cuda'):
            torch.cuda.empty_cache()
        return None

    def build(self) -> None:
        """The network and its input."""
        settings = self.settings
        layout = MEMORY_FORMATS[settings.memory_format]
        module = self.network
        if isinstance(module, str):
            make = partial(WholeModel, module) if is_config(module) else partial(create_network, module)
            module = make(size=self.size, fuse=settings.fuse)
        if isinstance(module, WholeModel):
            self.inputs = module.images(settings.batch_size)
        else:
            image = torch.randn(settings.batch_size, 3, *self.size, device=settings.device)
            self.inputs = image.contiguous(memory_format=layout)
        self.module = module.to(settings.device, memory_format=layout).eval()

    def prepare(self) -> None:
        """Count multiply-adds, then compile: compiled code cannot be counted."""
        with suppress(UnknownOperatorError):  # then only the share of the peak is unknown
            self.macs = self._count() * self.settings.batch_size
        if self.settings.compiler and isinstance(self.module, WholeModel):
            compile_parts(self.module.model, self.settings.compiler)
        elif self.settings.compiler:
            self.module.compile(backend=self.settings.compiler)
        self.module.train(self.settings.train)

    def _count(self) -> int:
        """Multiply-adds for one image."""
        if isinstance(self.network, str) and not isinstance(self.module, WholeModel) and not self.settings.fuse:
            return backbone_cost(self.network, self.size).macs  # without running it
        return count_cost(self.module, self.inputs[:1]).macs

    def time(self) -> float:
        """Seconds of one inference or training step."""
        return timed(self._train if self.settings.train else self._infer, self.settings.device)

    def measure_memory(self) -> None:
        """Peaks of inference and of a training step."""
        steps: dict[str, Callable[[], None]] = {'inference': self._infer}
        if (self.settings.train or self.settings.train_memory) and not self.settings.fuse:
            steps['training step'] = self._train
        for stage, step in steps.items():
            self.peaks[stage] = self.attempt(stage, lambda stage=stage, step=step: self._peak(stage, step))

    def _peak(self, stage: str, step: Callable[[], None]) -> float | None:
        training = stage == 'training step'
        if self.module.training != training:
            self.module.train(training)
            step()  # permanent allocations, such as compiled code or packed weights, are not part of the peak
        return peak_memory(step, self.settings.device)

    def _autocast(self) -> Any:
        dtype = DTYPES[self.settings.dtype]
        device = self.settings.device.partition(':')[0]
        return nullcontext() if dtype == torch.float32 else torch.autocast(device, dtype)

    def _infer(self) -> None:
        with torch.no_grad(), self._autocast():
            self.module(self.inputs)

    def _train(self) -> None:
        with self._autocast():
            loss = self._loss()
        loss.backward()
        self.module.zero_grad(set_to_none=True)

    def _loss(self) -> Tensor:
        if isinstance(self.module, WholeModel):
            return self.module.loss(self.settings.batch_size)
        return sum(m.float().mean() for m in self.module(self.inputs))

    def result(self, machine_flops: float | None = None, peak_product: str | None = None) -> Speed:
        """The row."""
        return Speed(
            self.name,
            self.size,
            self.settings,
            tuple(self.seconds),
            self.peaks.get('inference'),
            self.peaks.get('training step'),
            self.macs,
            machine_flops,
            peak_product,
            error=self.error,
        )


def _too_few_images(error: Exception) -> str | None:
    if not str(error).startswith('Expected more than 1 value per channel when training'):
        return None
    return 'BatchNorm of a map of one pixel cannot train on a batch of one image'
