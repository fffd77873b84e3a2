"""Metrics of an exported file and of its model on a config's test split, over the same images."""

from collections.abc import Sequence
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

    @torch.no_grad()
    def compare(self, model: nn.Module, deployed: DeployedModel) -> dict[str, tuple[float, float]]:
        """Every metric of the file and of the model."""
        with DefaultScope.overwrite_default_scope(self._cfg.get('default_scope')):
            evaluators = [self._evaluator(), self._evaluator()]
            for index in range(len(self._dataset)):
                data = pseudo_collate([self._dataset[index]])
                results = _as_samples(deployed, data['data_samples'])
                evaluators[0].process(results, data)
                evaluators[1].process(model.test_step(data), data)
            by_file, by_model = (evaluator.evaluate(len(self._dataset)) for evaluator in evaluators)
        return {name: (float(by_file[name]), float(by_model[name])) for name in by_model}

    def _evaluator(self) -> Evaluator:
        evaluator = Evaluator(self._cfg.test_evaluator)
        evaluator.dataset_meta = self._dataset.metainfo
        return evaluator


def _as_samples(deployed: DeployedModel, samples: Sequence[BaseDataElement]) -> list[BaseDataElement]:
    """Data samples with the file's results in place of predictions, for the images that they are of."""
    filled = []
    for sample in samples:
        results, sample = deployed(_image(sample.img_path, deployed)), sample.clone()
        if 'logits' in results:
            sample.pred_sem_seg = PixelData(data=torch.from_numpy(results['labels'].astype(np.int64))[None])
        else:
            sample.pred_instances = _instances(results)
        filled.append(sample)
    return filled


def _image(path: str, deployed: DeployedModel) -> np.ndarray:
    return read_image(path).astype(deployed.meta['input']['dtype'])


def _instances(results: dict[str, Any]) -> InstanceData:
    found = slice(int(results['count']))
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
