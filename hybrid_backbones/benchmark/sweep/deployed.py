"""Metrics and speed of a model as it is deployed: of its exported file, for frameworks with an `engine`."""

import tempfile
import time
from pathlib import Path

import torch
from mmengine.config import Config

from ...engine.config import load_config
from ...profiling.speed.comparison import WARM_UP
from ...profiling.speed.machine import timed
from ...profiling.speed.records import Settings, Speed

# Packages by engine.
PACKAGES = {
    'onnxruntime': ('onnx', 'onnxscript', 'onnxruntime'),
    'openvino': ('onnx', 'onnxscript', 'openvino'),
}
# Name of the exported file and of what belongs to it, but for the suffixes.
DEPLOYED = 'deployed'
_FILES = {'onnxruntime': ('onnx', '.onnx'), 'openvino': ('openvino', '.xml')}


def metrics_of_file(engine: str, config: Path, checkpoint: Path, folder: Path) -> dict[str, float]:
    """Metrics of a trained model's file on the config's test split, under the names that PyTorch's are logged with.

    Args:
        engine: A key of `PACKAGES`.
        config: Of the run, with the folders of its data.
        checkpoint: Its weights.
        folder: Where the file `DEPLOYED` is left.

    Raises:
        ExportError: The model does not export, or its file differs from PyTorch.
    """
    from ...export.exporting import export_model  # takes a second, and few sweeps have an engine

    cfg = load_config(config)
    file_format, suffix = _FILES[engine]
    meta = export_model(cfg, checkpoint, folder / f'{DEPLOYED}{suffix}', file_format=file_format, test_split=cfg)
    return {name: by_file for name, (by_file, _) in meta['verification']['metrics'].items()}


def speed_of_file(engine: str, cfg: Config, size: tuple[int, int], settings: Settings) -> Speed:
    """Time of the file of a config's untrained model on one image, from the image in memory to results.

    Args:
        engine: A key of `PACKAGES`; it has the threads that PyTorch has.
        cfg: Config of a detector or segmentor.
        size: Height and width in pixels of the image.
        settings: Limits of the measurement.

    Raises:
        ExportError: The model does not export.
    """
    from ...export.timed_model import FileEngine, TimedModel

    model = TimedModel(cfg, None, size)
    with tempfile.TemporaryDirectory() as folder:
        run = FileEngine(model.export(Path(folder)), engine, torch.get_num_threads(), model.image).run
        for _ in range(WARM_UP):
            run()
        seconds: list[float] = []
        begin = time.perf_counter()
        while len(seconds) < settings.iterations and (not seconds or time.perf_counter() - begin < settings.seconds):
            seconds.append(timed(run, 'cpu'))
    return Speed(model.name, size, settings, tuple(seconds))
