"""What a segmentor gets wrong, as tables and pictures."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from .pictures import draw_confusion


def analyze_label_maps(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], classes: Sequence[str], out: str | Path, ignored: int = 255
) -> list[Path]:
    """Write `classes.csv` (IoU, accuracy and pixels by class) and `confusion.csv` and `.png` (pixels).

    Args:
        pairs: Label map and prediction of each image, `(H, W)` both.
        classes: Their names.
        out: Folder to write to.
        ignored: Label of pixels that do not count.

    Returns:
        The files written.
    """
    out, count = Path(out), len(classes)
    out.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((count, count), np.int64)
    for truth, prediction in pairs:
        valid = truth != ignored
        index = truth[valid].astype(np.int64) * count + prediction[valid]
        pixels += np.bincount(index, minlength=count**2).reshape(count, count)
    right, given, predicted = pixels.diagonal(), pixels.sum(1), pixels.sum(0)
    with np.errstate(invalid='ignore'):
        table = dict(IoU=right / (given + predicted - right), accuracy=right / given, pixels=given)
    pd.DataFrame(table, index=pd.Index(classes, name='class')).round(4).to_csv(out / 'classes.csv')
    confusion = pd.DataFrame(pixels, index=pd.Index(classes, name='truth'), columns=classes)
    confusion.to_csv(out / 'confusion.csv')
    draw_confusion(confusion, out / 'confusion.png')
    return [out / name for name in ('classes.csv', 'confusion.csv', 'confusion.png')]
