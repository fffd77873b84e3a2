"""Per-image results of runs, from which intervals over images are computed: `images/ID.npz` in a results folder.

ID is that of the row, which has the file's digest. The files are small enough for a repository: about 30 kB for a
hundred images.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from .._files import written_whole
from ..checkpoints.download import sha256
from .intervals import AveragePrecision, Detections, MeanIoU, interval
from .rows import ResultsError, Row, describe

FOLDER = 'images'
# Per-image results by the name of their metric in rows.
Images: TypeAlias = Mapping[str, AveragePrecision | MeanIoU]


def file_of(results: Path, row_id: str) -> Path:
    """Where a results folder has the per-image results of a row."""
    return results / FOLDER / f'{row_id}.npz'


def images_of(results: Path, row: Row) -> Images:
    """The per-image results of a row, empty if it has none.

    Raises:
        ResultsError: The file is missing, or not the one that the row was written with.
    """
    if not row.get('images_sha256'):
        return {}
    path = file_of(results, row['id'])
    if not path.is_file() or sha256(path) != row['images_sha256']:
        found = 'not the file that the row was written with' if path.is_file() else 'missing'
        raise ResultsError(
            f'{path}, the per-image results of {describe(row)}, is {found}; restore it from where the row came from, '
            'or delete the row'
        )
    return read_images(path)


def images_of_runs(results: Path, rows: Sequence[Row]) -> dict[str, Images]:
    """The per-image results of all rows that have some, by the id of the row.

    Raises:
        ResultsError: As :func:`images_of`.
    """
    return {row['id']: images_of(results, row) for row in rows if row.get('images_sha256')}


def write_images(path: Path, metrics: Images) -> None:
    """Write per-image results, whole or not at all."""
    arrays = {
        f'{metric}.{name}': array for metric, found in metrics.items() for name, array in _arrays_of(found).items()
    }
    with written_whole(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def read_images(path: Path) -> dict[str, AveragePrecision | MeanIoU]:
    """What :func:`write_images` wrote."""
    with np.load(path) as file:
        parts: dict[str, dict[str, np.ndarray]] = {}
        for key in file.files:
            metric, _, name = key.partition('.')
            parts.setdefault(metric, {})[name] = file[key]
    return {metric: _from_arrays(arrays) for metric, arrays in parts.items()}


def limits_in_percent(metric: AveragePrecision | MeanIoU) -> list[float] | None:
    """Limits of a metric's 95 % interval; None for one image, or without objects or labels."""
    if len(metric.images) < 2 or np.isnan(metric.scores(np.ones((1, len(metric.images))))).any():
        return None
    found = interval(metric)
    # The intervals are moved, see `bootstrap`, and may exceed the range by that.
    return [round(min(max(100 * limit, 0.0), 100.0), 4) for limit in (found.low, found.high)]


def _arrays_of(metric: AveragePrecision | MeanIoU) -> dict[str, np.ndarray]:
    arrays = dict(images=np.array(metric.images))
    if isinstance(metric, MeanIoU):
        return arrays | dict(intersections=_small(metric.intersections), unions=_small(metric.unions))
    found = metric.detections
    return arrays | dict(
        objects=_small(metric.objects),
        recalls=metric.recalls,
        thresholds=np.array(metric.thresholds),
        image=_small(found.image),
        category=_small(found.category),
        score=_single_precision(found.score),
        matched=np.packbits(found.matched, axis=0),
        ignored=np.packbits(found.ignored, axis=0),
    )


def _from_arrays(arrays: dict[str, np.ndarray]) -> AveragePrecision | MeanIoU:
    images = tuple(arrays['images'].tolist())
    if 'unions' in arrays:
        return MeanIoU(images, arrays['intersections'], arrays['unions'])
    matched, ignored = (
        np.unpackbits(arrays[name], axis=0, count=int(arrays['thresholds'])).astype(bool)
        for name in ('matched', 'ignored')
    )
    image, category = (arrays[name].astype(int) for name in ('image', 'category'))
    detections = Detections(image, category, arrays['score'].astype(float), matched, ignored)
    return AveragePrecision(images, arrays['objects'], detections, arrays['recalls'])


def _small(numbers: np.ndarray) -> np.ndarray:
    """Integers from 0, in the smallest type that holds them."""
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))


def _single_precision(scores: np.ndarray) -> np.ndarray:
    """In single precision if that loses nothing: so networks compute them."""
    single = scores.astype(np.float32)
    return single if np.array_equal(single, scores) else scores
