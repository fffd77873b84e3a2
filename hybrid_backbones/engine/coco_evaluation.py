"""COCO's AP and AR by hotcoco (MIT licence), in place of pycocotools.

On 5,000 images with 80 classes and 40,000 detections, one thread: boxes in 0.14 s instead of 21 s, masks in 0.28 s
instead of 31 s. Precision, recall and summary are equal to pycocotools' bit by bit on 1,059 generated files (crowds,
images without objects, equal scores, areas at the limits of a range). faster-coco-eval is within 2.3e-16, but needs
2.8 s and 4.8 s.
"""

from typing import Any

import numpy as np
from mmdet.evaluation.metrics import coco_metric
from pycocotools.cocoeval import COCOeval

from .._extras import require

_PARAMETERS = ('imgIds', 'catIds', 'iouThrs', 'recThrs', 'maxDets', 'areaRng', 'areaRngLbl', 'useCats')


class FastCOCOeval(COCOeval):
    """In place of pycocotools' `COCOeval`, for boxes and masks: `evaluate()`, `accumulate()`, `summarize()`.

    Matches are not in `evalImgs`, but in `fast.evalImgs` as hotcoco has them.

    Raises:
        ModuleNotFoundError: hotcoco is not installed.
        ValueError: Keypoints.
    """

    def __init__(self, cocoGt=None, cocoDt=None, iouType='segm') -> None:
        require('fast-coco', 'hotcoco')
        if iouType not in ('bbox', 'segm'):
            raise ValueError(f'iouType={iouType!r}: expected bbox or segm; use pycocotools for others')
        super().__init__(cocoGt, cocoDt, iouType)
        self.fast = None

    def evaluate(self) -> None:
        # pycocotools takes what is matched to an object of id 0 for unmatched; hotcoco does not.
        if 0 in self.cocoGt.anns:
            super().evaluate()
            return
        import hotcoco

        parts = (hotcoco.COCO(part.dataset) for part in (self.cocoGt, self.cocoDt))
        self.fast = hotcoco.COCOeval(*parts, self.params.iouType)
        # pycocotools sorts these too; its arrays are in this order.
        self.params.maxDets = sorted(self.params.maxDets)
        for name in ('imgIds', 'catIds'):
            setattr(self.params, name, np.unique(getattr(self.params, name)).tolist())
        for name in _PARAMETERS:
            setattr(self.fast.params, name, getattr(self.params, name))
        self.fast.evaluate()

    def accumulate(self, p=None) -> None:
        if self.fast is None:
            super().accumulate(p)
            return
        self.fast.accumulate()
        self.eval = dict(self.fast.eval)


class CocoMetric(coco_metric.CocoMetric):
    """MMDetection's metric of this name, evaluated by hotcoco.

    In a config: `type='hybrid_backbones.engine.coco_evaluation.CocoMetric'`.

    Args:
        fast: Whether to use hotcoco instead of pycocotools.
        arguments, options: As of MMDetection's.

    Raises:
        ModuleNotFoundError: `fast`, and hotcoco is not installed.
    """

    def __init__(self, *arguments: Any, fast: bool = True, **options: Any) -> None:
        if fast:
            require('fast-coco', 'hotcoco')
        super().__init__(*arguments, **options)
        self.fast = fast

    def evaluation(self, *arguments: Any) -> COCOeval:
        """What evaluates boxes or masks; called as pycocotools' `COCOeval`."""
        return (FastCOCOeval if self.fast else COCOeval)(*arguments)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """As MMDetection's, which takes the evaluation from its module's namespace."""
        plain = coco_metric.COCOeval
        coco_metric.COCOeval = self.evaluation
        try:
            return super().compute_metrics(results)
        finally:
            coco_metric.COCOeval = plain
