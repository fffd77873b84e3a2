"""The metrics of MMDetection and MMSegmentation, which also write the per-image results of each evaluation to a file.

The file is replaced by every evaluation, so that it belongs to the last. The metrics are those of the original classes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmseg.evaluation.metrics import iou_metric
from pycocotools.cocoeval import COCOeval

from ...engine import coco_evaluation
from ..images import write_images
from ..intervals import AveragePrecision, MeanIoU

_FAST = f'{coco_evaluation.__name__}.CocoMetric'
# Type in a config: name of the class here.
_RECORDING = {
    'CocoMetric': 'CocoMetric',
    'mmdet.CocoMetric': 'CocoMetric',
    _FAST: 'CocoMetric',
    'IoUMetric': 'IoUMetric',
    'mmseg.IoUMetric': 'IoUMetric',
}
_NAMES = {'bbox': 'box_AP', 'segm': 'mask_AP'}


def record_images(cfg: Config, path: Path) -> Config:
    """Let validation write per-image results to `path`; metrics that no class here stands for write none."""
    evaluator = cfg.get('val_evaluator')
    if not isinstance(evaluator, dict) or evaluator['type'] not in _RECORDING:
        return cfg
    name = _RECORDING[evaluator['type']]
    fast = dict(fast=evaluator.get('fast', evaluator['type'] == _FAST)) if name == 'CocoMetric' else {}
    cfg.val_evaluator = dict(evaluator, type=f'{__name__}.{name}', per_image=str(path), **fast)
    return cfg


class CocoMetric(coco_evaluation.CocoMetric):
    """AP of boxes and masks.

    Args:
        per_image: File of per-image results.
        options: As of :class:`hybrid_backbones.engine.coco_evaluation.CocoMetric`.
    """

    def __init__(self, *, per_image: str, **options: Any) -> None:
        super().__init__(**options)
        self.per_image = Path(per_image)
        self._evaluations: dict[str, COCOeval] = {}

    def evaluation(self, *arguments: Any) -> COCOeval:
        evaluation = super().evaluation(*arguments)
        self._evaluations[evaluation.params.iouType] = evaluation
        return evaluation

    def compute_metrics(self, results: list) -> dict[str, float]:
        metrics = super().compute_metrics(results)
        evaluations = {_NAMES[kind]: found for kind, found in self._evaluations.items() if kind in self.metrics}
        self._evaluations = {}
        if evaluations:
            scored = {
                name: AveragePrecision.from_coco(getattr(found, 'fast', None) or found)
                for name, found in evaluations.items()
            }
            write_images(self.per_image, scored)
        return metrics


class IoUMetric(iou_metric.IoUMetric):
    """mIoU.

    Args:
        per_image: File of per-image results.
        options: As of MMSegmentation's.
    """

    def __init__(self, *, per_image: str, **options: Any) -> None:
        super().__init__(**options)
        self.per_image = Path(per_image)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        first = len(self.results)
        super().process(data_batch, data_samples)
        names = [Path(sample['img_path']).stem for sample in data_samples]
        self.results[first:] = [(*areas, name) for areas, name in zip(self.results[first:], names, strict=True)]

    def compute_metrics(self, results: list) -> dict[str, float]:
        intersections, unions, _, _, names = zip(*results, strict=True)
        areas = (np.stack([np.asarray(area, np.int64) for area in part]) for part in (intersections, unions))
        write_images(self.per_image, dict(mIoU=MeanIoU(names, *areas)))
        return super().compute_metrics([areas for *areas, _ in results])
