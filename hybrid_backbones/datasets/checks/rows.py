"""Findings about rows of an annotation file, and what several checks of rows need."""

from collections.abc import Callable, Iterator

import numpy as np

from .coco_file import CocoFile
from .findings import Finding, loss_severity

FIX = 'hybrid-backbones check-data CONFIG --fix OUT_DIR writes annotation files where this is put right'
EVALUATION_ENDS = 'The first validation ends in an error, and training with it.'


def finder(file: CocoFile) -> Callable[..., Finding]:
    """Makes findings about rows of `file`, given as indices or flags.

    Instead of a severity it takes the share of all objects from which on losing them is an error.
    """

    def find(severity: str | float, code: str, rows: np.ndarray, message: str, **details) -> Iterator[Finding]:
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        if len(rows):
            large = severity if isinstance(severity, float) else None
            yield Finding(
                severity if large is None else loss_severity(len(rows), file.num_annotations, large),
                code,
                str(file.path),
                message,
                record=file.name(int(rows[0])),
                count=len(rows),
                total=file.num_annotations,
                **details,
            )

    return find


def image_bounds(file: CocoFile) -> tuple[np.ndarray, np.ndarray]:
    """Width and height of each annotation's image, NaN where it is unknown."""
    known = file.image_rows >= 0
    return tuple(np.where(known, values[file.image_rows], np.nan) for values in (file.widths, file.heights))
