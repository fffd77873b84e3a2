"""What is known without a measurement: published figures, parameters and multiply-adds."""

from dataclasses import dataclass

from ...profiling.cost import backbone_cost
from ..quoted import Quoted, quoted
from ..quoted.table import USUAL
from .question import Question

# Published for most backbones: dataset, frameworks and metrics, the preferred ones first.
_SEGMENTATION = 'ade20k', ('mIoU', 'mIoU_ms')
_DETECTION = 'coco', ('box_AP',)


@dataclass(frozen=True)
class Prior:
    """What is known of a candidate.

    Attributes:
        parameters, macs: Of the backbone alone, for one image of the question's size.
        published: Such as `mIoU 46.7 (upernet, ade20k, 160k)`; None where nothing is.
    """

    parameters: int
    macs: int
    published: str | None


def prior(question: Question) -> dict[str, Prior]:
    """By candidate. Published figures are of other data, and those of several schedules are not comparable."""
    return {label: _prior(question, subject.name, subject.options) for label, subject in question.candidates.items()}


def _prior(question: Question, name: str, options: dict) -> Prior:
    cost = backbone_cost(name, question.size, **options)
    dataset, metrics = _SEGMENTATION if question.is_segmentation else _DETECTION
    records = [row for row in quoted(name, question.framework, dataset) if set(row.metrics) & set(metrics)]
    # ImageNet-1k before more data, the authors' own figures before others'.
    record = min(records, key=lambda row: (row.pretraining != USUAL, row.by != ''), default=None)
    return Prior(cost.parameters, cost.macs, record and _described(record, metrics))


def _described(record: Quoted, metrics: tuple[str, ...]) -> str:
    metric = next(name for name in metrics if name in record.metrics)
    return f'{metric} {record.metrics[metric]} ({record.framework}, {record.dataset}, {record.schedule})'
