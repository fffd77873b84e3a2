"""`--amp auto`: the precision in which a run's own model trains fastest on this machine, by measurement.

A processor's flags say which instructions it has, not what kernels make of them: fp16 products of torch 2.14.0 take a
thousand times as long as fp32's on some CPUs (pytorch#193951), bf16 convolutions 4 to 16 times since 2.13
(pytorch#183815).
"""

import copy
import math
import random
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list
from mmengine.model import is_model_wrapper
from mmengine.runner import CheckpointLoader, Runner
from torch import Tensor, nn

from .._timing import timed
from .config import DTYPES, use_amp

PRECISIONS = ('fp32', *DTYPES)
# A layer that takes so many times as long as in fp32 is computed by reference code: a whole model may take hours.
_REFERENCE = 20
# Of fp32's time: mixed precision that saves less is not worth its rounding.
_LEAST_SAVING = 0.03
_ROUNDS = 3


def choose_precision(runner: Runner) -> None:
    """Let a run train in the precision in which its model is fastest on its first images, and log the times.

    Weights, statistics and random numbers of the run stay as they are. All processes of a distributed run measure, and
    take the choice of the first.

    Raises:
        ValueError: The optimizer wrapper is neither MMEngine's plain one nor its one for mixed precision.
    """
    loader = runner.train_loop.dataloader  # built here, as it would be later: it draws random numbers
    with _random_numbers_kept():
        device = next(runner.model.parameters()).device.type
        slow = reference_layers(device)
        ratios = _measure(
            _training_step(runner.model, loader), [name for name in PRECISIONS if name not in slow], device
        )
    chosen = [fastest(ratios)]
    broadcast_object_list(chosen)
    use_amp(runner.cfg, chosen[0])
    runner.optim_wrapper = copy.deepcopy(runner.cfg.optim_wrapper)
    runner.dump_config()
    times = ', '.join(f'{name} {ratio:.2f}' for name, ratio in ratios.items())
    left_out = ''.join(f'; {name} is left out: {reason}' for name, reason in slow.items())
    runner.logger.info(f"--amp auto: training in {chosen[0]}; a step takes, in times fp32's: {times}{left_out}")


def fastest(ratios: dict[str, float]) -> str:
    """Of times relative to fp32's: the precision of the least, fp32 unless something is saved."""
    best = min(ratios, key=ratios.get)
    return best if ratios[best] <= 1 - _LEAST_SAVING else 'fp32'


def precision_of_run(checkpoint: str) -> str:
    """That of the run which wrote a checkpoint: a resumed run goes on in it, whatever is fastest here."""
    text = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')['meta']['cfg']
    wrapper = Config.fromstring(text, '.py').optim_wrapper
    if wrapper.get('type') != 'AmpOptimWrapper':
        return 'fp32'
    return next(name for name, dtype in DTYPES.items() if dtype == wrapper.get('dtype'))


def reference_layers(device: str) -> dict[str, str]:
    """Precisions of which this PyTorch computes some layer by reference code on this device, with the reason."""
    slow = {}
    for precision in DTYPES:
        for name, step in _layers(device).items():
            ratio = _least_ratio(step, precision, device)
            if ratio > _REFERENCE:
                slow[precision] = f'{name} takes {ratio:.0f} times as long as in fp32'
                break
    return slow


def _layers(device: str) -> dict[str, Callable[[], None]]:
    """A training step of small layers of every kind."""
    layers = {
        'a linear layer': (nn.Linear(256, 256), torch.randn(512, 256)),
        'a convolution': (nn.Conv2d(64, 64, 3), torch.randn(1, 64, 16, 16)),
        'a depthwise convolution': (nn.Conv2d(64, 64, 7, groups=64), torch.randn(1, 64, 16, 16)),
    }
    return {name: partial(_train, layer.to(device), x.to(device)) for name, (layer, x) in layers.items()}


def _train(layer: nn.Module, x: Tensor) -> None:
    layer(x).float().sum().backward()


def _least_ratio(step: Callable[[], None], precision: str, device: str) -> float:
    """The least time of a short step over the least in fp32: of milliseconds, others' work may take most."""
    least = {'fp32': math.inf, precision: math.inf}
    for index in range(1 + 2 * _ROUNDS):
        for name in least:
            with _autocast(name, device):
                seconds = timed(step, device)
            if index > 0:  # kernels are generated in the first call
                least[name] = min(least[name], seconds)
        if index > 0 and least[precision] > 1:  # second, where fp32 takes milliseconds
            break
    return least[precision] / least['fp32']


def _measure(step: Callable[[], None], precisions: list[str], device: str) -> dict[str, float]:
    """Time of a step relative to fp32's, the first of `precisions`: the medians over rounds, in turn."""
    rounds = []
    for _ in range(1 + _ROUNDS):
        seconds = {}
        for name in precisions:
            with _autocast(name, device):
                seconds[name] = timed(step, device)
        rounds.append({name: value / seconds['fp32'] for name, value in seconds.items()})
    return {name: statistics.median(ratios[name] for ratios in rounds[1:]) for name in precisions}


def _training_step(model: nn.Module, loader: Any) -> Callable[[], None]:
    """Forward and backward of a copy of a model on the first images of its data."""
    model = copy.deepcopy(model.module if is_model_wrapper(model) else model).train()
    batch = _first_batch(loader)

    def step() -> None:
        data = model.data_preprocessor(copy.deepcopy(batch), True)
        model.parse_losses(model(**data, mode='loss'))[0].backward()
        model.zero_grad(set_to_none=True)

    return step


def _first_batch(loader: Any) -> Any:
    size = loader.batch_size or loader.batch_sampler.batch_size
    return loader.collate_fn([loader.dataset[index % len(loader.dataset)] for index in range(size)])


def _autocast(precision: str, device: str) -> AbstractContextManager:
    return nullcontext() if precision == 'fp32' else torch.autocast(device, getattr(torch, DTYPES[precision]))


@contextmanager
def _random_numbers_kept() -> Iterator[None]:
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  (that of pipelines)
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
