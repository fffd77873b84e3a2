"""A config's model at one size of image: as PyTorch runs it, and as an exported file, for measurements."""

import copy
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import nn

from ..backbones.pyramid import PyramidBackbone
from ..datasets.roots import walk
from ..datasets.scenes import draw_scene
from ..engine.compiling import compile_parts
from ..engine.trained_model import load_trained
from ..layers.fast_linear import use_fast_linear
from ..profiling.speed.whole_model import WholeModel, find_config
from .exporting import is_exported, written_model
from .input_rule import read_input_rule
from .preprocessing import Preprocessing
from .quantization import quantize
from .runtime import DeployedModel, read_image
from .verification import cut, predict, results_of

# Side in pixels, that of the embedded dataset.
_SCENE = 160


class TimedModel:
    """A model, the image it is timed with, and its exported file.

    Args:
        config: Config, or the name of one or `CONFIG+BACKBONE`, see
            :func:`~..profiling.speed.whole_model.find_config`.
        checkpoint: Its weights. None: random ones, and a detector's score threshold such that it finds as many objects
            as the config allows.
        size: Height and width in pixels of the image, which the model does not resize.
        image: File to cut it from. By default it is a drawn scene, or noise for random weights. Where it is too small,
            it is repeated by reflection.

    Attributes:
        model: As built, in fp32: the truth that results are compared with.
        image: (H, W, 3) uint8 RGB.

    Raises:
        CheckpointError, FileNotFoundError, ValueError: No such config or backbone, or a checkpoint of another model.
    """

    def __init__(
        self,
        config: Config | str,
        checkpoint: str | Path | None,
        size: tuple[int, int],
        image: str | Path | None = None,
    ) -> None:
        cfg = config if isinstance(config, Config) else find_config(config)
        self.name = cfg.filename if isinstance(config, Config) else config
        self.size = size
        self.cfg = at_size(cfg, size)
        self._weights = Path(checkpoint).name if checkpoint else 'random'
        torch.manual_seed(0)
        trained, self._classes = load_trained(self.cfg, checkpoint) if checkpoint else (None, None)
        self._whole = WholeModel(self.cfg, size, model=trained).eval()
        if image is None and checkpoint is None:
            self.image = self._whole.images(1)[0]
        else:
            self.image = cut(
                draw_scene(_SCENE, 0, 0, 1).image[..., ::-1] if image is None else read_image(image), *size
            )
        self.preprocessing = Preprocessing(read_input_rule(self.cfg)).eval()

    @property
    def model(self) -> nn.Module:
        return self._whole.model

    @cached_property
    def fused(self) -> WholeModel:
        """As `hybrid-backbones test` runs it, with the fastest linear layers of a CPU, and with a fused backbone."""
        whole = copy.deepcopy(self._whole)
        if isinstance(whole.model.backbone, PyramidBackbone):
            whole.model.backbone.fuse()
        use_fast_linear(whole.model)
        return whole

    def compiled(self) -> WholeModel:
        """The fused model with backbone and neck compiled.

        Raises:
            RuntimeError: This machine cannot compile.
        """
        torch.compiler.reset()  # otherwise a second model's sizes are compiled as dynamic, unlike the first's
        whole = copy.deepcopy(self.fused)
        compile_parts(whole.model)
        return whole

    def export(self, folder: Path) -> Path:
        """The ONNX file of the model in `folder`, written unless it is there. It is not verified: the caller compares.

        Raises:
            ExportError, ValueError: The model does not export.
        """
        name = re.sub(r'[^\w.-]+', '_', Path(self.name).name.replace('.py', ''))
        path = folder / f'{name}_{self.size[0]}x{self.size[1]}.onnx'
        if not is_exported(path, self.cfg, self.model):
            with written_model(self.cfg, self.model, path, self._weights, self._classes):
                pass
        return path

    def quantize(self, folder: Path, calibration: Path) -> Path:
        """The ONNX file in int8, written unless it is there, see :func:`~.quantization.quantize`."""
        path = self.export(folder)
        out = path.with_name(f'{path.stem}_int8.onnx')
        quantize(path, calibration, out)
        return out


class TorchEngine:
    """PyTorch as an engine.

    Args:
        timed: What is run.
        whole: One of its models.
        bf16: Run by autocast in bfloat16.
    """

    def __init__(self, timed: TimedModel, whole: WholeModel, bf16: bool = False) -> None:
        self._timed, self._whole, self._bf16 = timed, whole, bf16
        self._bgr = np.ascontiguousarray(timed.image[..., ::-1])

    def run(self) -> Any:
        """From the image to results."""
        with torch.no_grad(), self._precision():
            return self._whole([self._bgr])

    def results(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Those of one image, (1, H, W, 3), as an exported file gives them."""
        with self._precision():
            return results_of(predict(self._whole.model, self._timed.preprocessing, images)[0])

    def _precision(self) -> AbstractContextManager:
        return torch.autocast('cpu', torch.bfloat16) if self._bf16 else nullcontext()


class FileEngine:
    """An engine that runs the exported file.

    Args:
        path: The file.
        engine: Name of the engine, as :class:`~.runtime.DeployedModel` takes it.
        threads: Of the engine.
        image: To be timed with.
    """

    def __init__(self, path: Path, engine: str, threads: int, image: np.ndarray) -> None:
        self.results: Callable[[np.ndarray], dict[str, np.ndarray]] = DeployedModel(path, engine, threads)
        self._image = image

    def run(self) -> Any:
        """From the image to results."""
        return self.results(self._image)


def at_size(cfg: Config, size: tuple[int, int]) -> Config:
    """A copy of a config whose test pipeline leaves an image of this height and width at its size."""
    cfg = copy.deepcopy(cfg)

    def resize(step: dict) -> None:
        if str(step.get('type')).rpartition('.')[2] == 'Resize' and 'scale' in step:
            step['scale'] = size[::-1]

    walk(cfg.test_dataloader.dataset, resize)
    return cfg
