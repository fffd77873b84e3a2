"""Whole models by several engines, in turn: seconds an image, and whether they say what PyTorch says.

On shared machines only ratios of interleaved runs mean anything: every round runs each engine once on the same image,
and a ratio is the median of the rounds' ratios. Both ways lead from an image in memory to results in it.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .._extras import require
from .._processor import processor_name
from ..compat.amp import bf16_instructions
from ..profiling.speed.machine import timed
from .evaluation import TestSplit
from .exporting import versions
from .programs import ExportError
from .runtime import list_images
from .timed_model import FileEngine, TimedModel, TorchEngine
from .verification import compare

# Ratios are to this one.
BASE = 'eager'
ENGINES = (BASE, 'eager-bf16', 'compiled', 'onnxruntime', 'openvino', 'openvino-bf16')
# With images for calibration.
INT8_ENGINES = ('onnxruntime-int8', 'openvino-int8')
# Compiled code and engines' buffers are ready after these rounds.
_WARM_UP = 2
# Threads of an engine wait actively for its next call, for some milliseconds, which would slow the other ones down.
_PAUSE = 0.05
_METRICS = {'coco/bbox_mAP': 'box AP', 'coco/segm_mAP': 'mask AP', 'mIoU': 'mIoU'}
_UNITS = dict(box='px', score='score', mask_iou='mask IoU', logits='logits')


class Engine(Protocol):
    """What runs a model."""

    def run(self) -> Any:
        """Timed: from the image to results."""

    def results(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Results in the form of an exported file, for the comparison with PyTorch."""


@dataclass
class EngineRow:
    """One engine's measurement.

    Attributes:
        seconds: An image, by round.
        agreement: What :func:`~.verification.compare` says of its results and those of the unfused model in fp32.
        metrics: Of its results on the test split, if they were asked for.
        missing: Why there are no seconds.
    """

    config: str
    engine: str
    size: tuple[int, int]
    threads: int
    seconds: list[float] = field(default_factory=list)
    agreement: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    missing: str | None = None

    def median(self) -> float:
        """Seconds an image."""
        return statistics.median(self.seconds)

    def ratio(self, base: 'EngineRow') -> float:
        """How many times as fast as `base`."""
        return statistics.median(b / a for a, b in zip(self.seconds, base.seconds, strict=True))


def compare_engines(
    timed_model: TimedModel,
    folder: Path,
    threads: int,
    engines: Sequence[str] | None = None,
    calibration: Path | None = None,
    split: TestSplit | None = None,
    rounds: int = 15,
    progress: Callable[[str], None] = lambda line: None,
) -> list[EngineRow]:
    """Run a model by every engine in turn.

    An engine that is not to be had here is a row with the reason.

    Args:
        timed_model: What is run.
        folder: Where the exported file is written, or found.
        threads: Of every engine; PyTorch has been given as many.
        engines: Of `ENGINES`, and with `calibration` of `INT8_ENGINES`; None for all. Ratios are to `eager`, which
            always runs.
        calibration: Folder of images for int8.
        split: To compute the metrics of every engine.
        rounds: After the warm-up.
        progress: Called with a line for each step.

    Raises:
        FileNotFoundError: No images for calibration.
        ValueError: No such engine.
    """
    known = ENGINES + INT8_ENGINES if calibration else ENGINES
    if unknown := set(engines or ()) - set(known):
        raise ValueError(
            f'no engine {", ".join(sorted(unknown))}; there are {", ".join(known)}'
            + ('' if calibration else f', and with images for calibration {", ".join(INT8_ENGINES)}')
        )
    if calibration:
        list_images(calibration)  # a folder without images is an error before anything is run
    ready: dict[str, Engine] = {}
    rows = []
    for name in dict.fromkeys([BASE, *(engines or known)]):
        row = EngineRow(timed_model.name, name, timed_model.size, threads)
        rows.append(row)
        progress(f'{timed_model.name}: preparing {name}')
        try:
            engine = _prepare(name, timed_model, folder, calibration, threads)
            row.agreement = _agreement(timed_model, engine)
            row.metrics = split.metrics(engine.results) if split else {}
        except Exception as error:  # engines raise classes of their own; the others are measured
            if name == BASE:
                raise
            row.missing = _reason(error)
            continue
        ready[name] = engine
    seconds = _in_turn(ready, rounds, progress)
    for row in rows:
        row.seconds = seconds.get(row.engine, [])
    return rows


def _reason(error: Exception) -> str:
    """The first line of an error, with its class if it is not one of those that this package raises."""
    line = (str(error).strip() or 'no message').splitlines()[0]
    return line if isinstance(error, (ValueError, ImportError, ExportError)) else f'{type(error).__name__}: {line}'


def _prepare(name: str, timed_model: TimedModel, folder: Path, calibration: Path | None, threads: int) -> Engine:
    if name == 'eager-bf16' and not bf16_instructions():
        raise ValueError('this CPU has no bf16 instructions')
    if name == 'compiled':
        return TorchEngine(timed_model, timed_model.compiled())
    if name.startswith(BASE):
        return TorchEngine(timed_model, timed_model.fused, bf16=name == 'eager-bf16')
    require('export', name.partition('-')[0])
    if name in INT8_ENGINES:
        path = timed_model.quantize(folder, calibration)
        return FileEngine(path, name.removesuffix('-int8'), threads, timed_model.image)
    return FileEngine(timed_model.export(folder), name, threads, timed_model.image)


def _agreement(timed_model: TimedModel, engine: Engine) -> dict[str, float]:
    images = timed_model.image[np.newaxis]
    return compare(timed_model.model, timed_model.preprocessing, engine.results, images)


def _in_turn(engines: Mapping[str, Engine], rounds: int, progress: Callable[[str], None]) -> dict[str, list[float]]:
    """Seconds of every engine by round."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for index in range(_WARM_UP + rounds):
        for name, engine in engines.items():
            time.sleep(_PAUSE)
            seconds[name].append(timed(engine.run, 'cpu'))
        label = f'warm-up {index + 1}/{_WARM_UP}' if index < _WARM_UP else f'{index + 1 - _WARM_UP}/{rounds}'
        progress(f'{label}: ' + ', '.join(f'{name} {values[-1]:.3f} s' for name, values in seconds.items()))
    return {name: values[_WARM_UP:] for name, values in seconds.items()}


def about() -> dict[str, Any]:
    """What measurements hold for: the processor, and versions."""
    return dict(processor=processor_name(), bf16=bf16_instructions(), versions=versions())


def records(rows: Sequence[EngineRow]) -> list[dict[str, Any]]:
    """Rows for the JSON, with medians and ratios where there are seconds."""
    bases = _bases(rows)
    return [
        asdict(row) | (dict(median=row.median(), ratio=row.ratio(bases[row.config])) if row.seconds else {})
        for row in rows
    ]


def _bases(rows: Sequence[EngineRow]) -> dict[str, EngineRow]:
    """By config."""
    return {row.config: row for row in rows if row.engine == BASE}


def markdown(rows: Sequence[EngineRow]) -> str:
    """A table of rows."""
    bases = _bases(rows)
    lines = [
        '| config | size | threads | engine | s an image | times as fast as eager | differs from PyTorch by |',
        '|---|---|---|---|---|---|---|',
    ]
    for row in rows:
        measured = [f'{row.median():.3f}', f'{row.ratio(bases[row.config]):.2f}'] if row.seconds else ['', '']
        cells = [
            Path(row.config).name,
            'x'.join(map(str, row.size)),
            str(row.threads),
            row.engine,
            *measured,
            row.missing or '; '.join(filter(None, [agreement_text(row.agreement), metrics_text(row.metrics)])),
        ]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def metrics_text(metrics: Mapping[str, float]) -> str:
    """The metrics by which models are ranked, in one cell."""
    return ', '.join(f'{name} {metrics[key]:.4g}' for key, name in _METRICS.items() if key in metrics)


def agreement_text(found: Mapping[str, float]) -> str:
    """What `compare` found, in one cell."""
    parts = [f'{found[name]:.2g} {unit}' for name, unit in _UNITS.items() if name in found]
    if 'detections' in found:
        parts.append(f'{found["missing"]} missing of {found["detections"]} detections')
    else:
        parts.append(f'{found["other_class"]} of {found["pixels"]} pixels')
    return ', '.join(parts)
