"""What a segmentor gets wrong, as tables and pictures."""

import heapq
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from .pictures import draw_confusion, draw_label_maps

WORST = 5


def analyze_label_maps(
    samples: Iterable[tuple[Path, np.ndarray, np.ndarray]],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    out: str | Path,
    ignored: int = 255,
) -> list[Path]:
    """Write tables and pictures of a segmentor's errors.

    Args:
        samples: Image, its label map and the prediction, `(H, W)` both.
        classes: Their names.
        palette: Their colours (R, G, B).
        out: Folder to write to: `classes.csv` (IoU, accuracy and pixels by class), `confusion.csv` (pixels) and `.png`,
            `images.csv` (share of wrong pixels by image), `worst.png` (those with the most).
        ignored: Label of pixels that do not count.

    Returns:
        The files written.
    """
    out, count = Path(out), len(classes)
    out.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((count, count), np.int64)
    wrong: dict[str, float] = {}
    worst: list[tuple] = []
    for i, (image, truth, prediction) in enumerate(samples):
        valid = truth != ignored
        index = truth[valid].astype(np.int64) * count + prediction[valid]
        pixels += np.bincount(index, minlength=count**2).reshape(count, count)
        share = float((truth != prediction)[valid].mean()) if valid.any() else 0.0
        wrong[str(image)] = share
        # `i` decides between equal shares, where arrays cannot be compared.
        keep = heapq.heappush if len(worst) < WORST else heapq.heappushpop
        keep(worst, (share, -i, image, truth, np.where(valid, prediction, ignored)))
    _class_table(pixels, classes).round(4).to_csv(out / 'classes.csv')
    confusion = pd.DataFrame(pixels, index=pd.Index(classes, name='truth'), columns=classes)
    confusion.to_csv(out / 'confusion.csv')
    draw_confusion(confusion, out / 'confusion.png')
    shares = pd.Series(wrong, name='wrong pixels').rename_axis('image').sort_values(ascending=False, kind='stable')
    shares.round(4).to_csv(out / 'images.csv')
    shown = [
        (image, truth, prediction, f'{share:.1%} wrong') for share, _, image, truth, prediction in sorted(worst)[::-1]
    ]
    draw_label_maps(shown, np.asarray(palette, np.uint8).reshape(-1, 3), out / 'worst.png')
    return sorted(path for path in out.iterdir() if path.suffix in ('.csv', '.png'))


def _class_table(pixels: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    right, given, predicted = pixels.diagonal(), pixels.sum(1), pixels.sum(0)
    with np.errstate(invalid='ignore'):
        table = dict(IoU=right / (given + predicted - right), accuracy=right / given, pixels=given)
    return pd.DataFrame(table, index=pd.Index(classes, name='class'))
