"""Are the data of a config there and whole, and do they fit model and evaluators? Asked before anything slow happens.

One module answers one question; each is a function from a :class:`~.view.DataView` to findings. All findings are shown
at once, errors first.
"""

from collections.abc import Callable, Iterable, Iterator

from mmengine.config import Config

from ..roots import SPLITS
from .class_names import check_class_names
from .class_order import adopt_order
from .evaluators import check_evaluators
from .filters import check_filters
from .findings import ERROR, NOTE, SEVERITIES, WARNING, DataError, Finding, Report
from .geometry import check_geometry
from .heads import check_heads
from .images import check_images
from .label_maps import check_label_maps
from .layouts import check_layouts, expected_layout, missing_data_hint
from .objects import check_objects
from .pipelines import check_pipelines
from .records import check_records
from .segmentations import check_segmentations
from .splits import check_splits
from .view import DataView

__all__ = [
    'CHECKS',
    'ERROR',
    'NOTE',
    'SEVERITIES',
    'WARNING',
    'DataError',
    'DataView',
    'Finding',
    'Report',
    'check_data',
    'examine',
    'expected_layout',
    'missing_data',
]

CHECKS: tuple[Callable[[DataView], Iterator[Finding]], ...] = (
    check_layouts,
    check_class_names,
    check_heads,
    check_geometry,
    check_pipelines,
    check_records,
    check_objects,
    check_segmentations,
    check_filters,
    check_images,
    check_label_maps,
    check_splits,
    check_evaluators,
)
_MISSING = ('folder-missing', 'file-missing', 'image-missing', 'label-missing')


def examine(data: DataView, allow: Iterable[str] = ()) -> Report:
    """Everything that the checks find in a config and its data.

    Args:
        data: The config, and how much of its data is looked at.
        allow: Codes of findings that pass on purpose.
    """
    report = Report(allowed=frozenset(allow))
    for check in CHECKS:
        report.add(check(data))
    if any(finding.code in _MISSING for finding in report.findings):
        report.hints += missing_data_hint(data)
    return report


def missing_data(cfg: Config, splits: tuple[str, ...] = SPLITS) -> list[str]:
    """Every annotation file, folder, image and label map that a config names and that is not there, one line each."""
    data = DataView(cfg, splits)
    checks = (check_layouts, check_images, check_label_maps, check_evaluators)
    findings = (finding for check in checks for finding in check(data) if finding.code in _MISSING)
    return list(dict.fromkeys(finding.message for finding in findings))


def check_data(cfg: Config, splits: tuple[str, ...] = SPLITS, allow: Iterable[str] = ()) -> Report:
    """Examine a config and its data before training or testing.

    Args:
        cfg: Config of mmdet or mmseg; its classes get the order of the checkpoint that it loads, if they have another.
        splits: Data loaders to look at.
        allow: Codes of findings that pass on purpose.

    Returns:
        What was found, for the log of the run.

    Raises:
        DataError: The results would be meaningless. One error with everything that was found, and what to do.
    """
    notes = adopt_order(cfg)
    report = examine(DataView(cfg, splits), allow)
    report.add(notes)
    report.raise_errors()
    return report
