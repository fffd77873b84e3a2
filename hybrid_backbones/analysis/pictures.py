"""Pictures of errors: a confusion matrix, and the regions of single errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from ..visualize.figures import new_figure, save_figure

COLUMNS, ROWS = 5, 4
# Of a region, around its boxes, as a share of their longer side.
MARGIN = 0.4


@dataclass(frozen=True)
class Region:
    """A part of an image, around boxes `(x, y, width, height)`: one that was detected, the true one, or both."""

    image: Path
    title: str
    detection: Sequence[float] | None = None
    truth: Sequence[float] | None = None

    def bounds(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 of a square with some of the surroundings."""
        boxes = np.array([box for box in (self.detection, self.truth) if box is not None], float)
        low, high = boxes[:, :2].min(0), (boxes[:, :2] + boxes[:, 2:]).max(0)
        centre, side = (low + high) / 2, max((high - low).max() * (1 + 2 * MARGIN), 16)
        return (*(centre - side / 2), *(centre + side / 2))


def draw_confusion(table: pd.DataFrame, path: Path) -> None:
    """Draw counts as shares of their rows; classes that neither occur nor are predicted are left out."""
    used = (table.sum(axis=1) + table.sum(axis=0)) > 0
    table = table.loc[used, used]
    if table.empty:
        return
    shares = table.div(table.sum(axis=1).clip(lower=1), axis=0)
    side = min(2.5 + 0.35 * max(table.shape), 14)
    figure = new_figure(side, side)
    axes = figure.subplots()
    axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    axes.set_xticks(range(table.shape[1]), table.columns, rotation=90, fontsize=7)
    axes.set_yticks(range(table.shape[0]), table.index, fontsize=7)
    axes.set(xlabel='prediction', ylabel='truth')
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.005 and max(table.shape) <= 30:
            axes.text(
                column, row, f'{share:.0%}', ha='center', va='center', fontsize=6, color='w' if share > 0.6 else 'k'
            )
    save_figure(figure, path)


def draw_regions(regions: Sequence[Region], path: Path) -> None:
    """Draw the first regions on one sheet, detections yellow and true boxes green; none for none."""
    from matplotlib.patches import Rectangle

    regions = regions[: COLUMNS * ROWS]
    if not regions:
        return
    rows = (len(regions) + COLUMNS - 1) // COLUMNS
    figure = new_figure(2 * COLUMNS, 2.6 * rows)
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.axis('off')
    for axes, region in zip(grid.flat, regions, strict=False):
        with Image.open(region.image) as image:
            axes.imshow(ImageOps.exif_transpose(image).convert('RGB'))
        x0, y0, x1, y1 = region.bounds()
        axes.set(xlim=(x0, x1), ylim=(y1, y0))
        for box, colour in ((region.truth, 'lime'), (region.detection, 'yellow')):
            if box is not None:
                (x, y, width, height) = box
                axes.add_patch(Rectangle((x, y), width, height, fill=False, color=colour, linewidth=1.5))
        axes.set_title(f'{region.title}\n{region.image.name[-28:]}', fontsize=7)
    save_figure(figure, path)


def draw_label_maps(
    samples: Sequence[tuple[Path, np.ndarray, np.ndarray, str]], colours: np.ndarray, path: Path
) -> None:
    """Draw samples (image, truth, prediction, title) one below the other; labels above the colours are black."""
    if not samples:
        return
    lookup = np.zeros((256, 3), np.uint8)
    lookup[: len(colours)] = colours[:255]
    figure = new_figure(9, 2.5 * len(samples))
    for row, (file, truth, prediction, title) in zip(
        figure.subplots(len(samples), 3, squeeze=False), samples, strict=True
    ):
        with Image.open(file) as image:
            pictures = np.asarray(ImageOps.exif_transpose(image).convert('RGB')), lookup[truth], lookup[prediction]
        for axes, picture, text in zip(
            row, pictures, (f'{file.name[-28:]}\n{title}', 'truth', 'prediction'), strict=True
        ):
            axes.imshow(picture)
            axes.set_title(text, fontsize=7)
            axes.axis('off')
    save_figure(figure, path)
