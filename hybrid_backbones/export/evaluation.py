"""Metrics of an exported file and of its model on a config's test split, over the same images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import nn

from .runtime import DeployedModel, read_image

# Metrics are shares of one, or percentages; at most this share of one may lie between file and model.
LIMIT = 0.0005


class TestSplit:
    """The images of a config's test split, with its metrics.

    Args:
        cfg: As :func:`hybrid_backbones.engine.config.load_config` reads it.
    """

    def __init__(self, cfg: Config) -> None:
        self._cfg = cfg
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
            self._dataset = DATASETS.build(cfg.test_dataloader.dataset)

    def paths(self, number: int) -> list[Path]:
        """Files of the first images."""
        return [Path(self._dataset.get_data_info(i)['img_path']) for i in range(min(number, len(self._dataset)))]

    def compare(self, model: nn.Module, deployed: DeployedModel) -> dict[str, tuple[float, float]]:
        """Every metric of the file and of the model."""
        dtype = deployed.meta['input']['dtype']
        by_file = self.metrics(lambda images: deployed(images.astype(dtype)))
        by_model = self._metrics(model.test_step)
        return {name: (by_file[name], by_model[name]) for name in by_model}

    def metrics(self, run: Callable[[np.ndarray], dict[str, np.ndarray]]) -> dict[str, float]:
        """Every metric of what gives an exported file's results of images (1, H, W, 3) uint8 RGB."""
        return self._metrics(
            lambda data: [_filled(sample, run(read_image(sample.img_path)[None])) for sample in data['data_samples']]
        )

    @torch.no_grad()
    def _metrics(self, predict: Callable[[dict[str, Any]], Sequence[BaseDataElement]]) -> dict[str, float]:
        with DefaultScope.overwrite_default_scope(self._cfg.get('default_scope')):
            evaluator = Evaluator(self._cfg.test_evaluator)
            evaluator.dataset_meta = self._dataset.metainfo
            for index in range(len(self._dataset)):
                data = pseudo_collate([self._dataset[index]])
                evaluator.process(predict(data), data)
            return {name: float(value) for name, value in evaluator.evaluate(len(self._dataset)).items()}


def _filled(sample: BaseDataElement, results: dict[str, np.ndarray]) -> BaseDataElement:
    """A data sample with results of its image in place of predictions."""
    sample = sample.clone()
    if 'logits' in results:
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(results['labels'].astype(np.int64)))
    else:
        sample.pred_instances = _instances({name: values[0] for name, values in results.items()})
    return sample


def _instances(results: dict[str, np.ndarray]) -> InstanceData:
    """Detections of one image; those of a batch are padded behind its `count`."""
    found = slice(int(results.get('count', len(results['scores']))))
    names = dict(bboxes='boxes', scores='scores', labels='labels', masks='masks')
    return InstanceData(
        **{ours: torch.from_numpy(results[name][found]) for ours, name in names.items() if name in results}
    )


def apart(metrics: dict[str, tuple[float, float]]) -> list[str]:
    """The metrics in which file and model are further apart than `LIMIT`, in words."""
    # mmseg's are percentages.
    share = 100 if any(abs(value) > 1 for pair in metrics.values() for value in pair) else 1
    return [
        f'{name} is {file:.5f} by the file and {model:.5f} by PyTorch'
        for name, (file, model) in metrics.items()
        if abs(file - model) > LIMIT * share
    ]
