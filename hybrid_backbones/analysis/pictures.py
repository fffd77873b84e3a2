"""Pictures of errors: a confusion matrix, and the regions of single errors."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ..visualize.figures import new_figure, save_figure

COLUMNS, ROWS = 5, 4
# Of a region, around the box, as a share of the box's longer side.
MARGIN = 0.5


def draw_confusion(table: pd.DataFrame, path: Path) -> None:
    """Draw counts as shares of their rows; rows and columns without any are left out."""
    table = table.loc[table.sum(axis=1) > 0, table.sum(axis=0) > 0]
    if table.empty:
        return
    shares = table.div(table.sum(axis=1), axis=0)
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
                column, row, f'{share:.0%}', ha='center', va='center', fontsize=6, color='w' if share > 0.5 else 'k'
            )
    save_figure(figure, path)


def draw_crops(regions: Sequence[tuple[Path, Sequence[float], str]], path: Path) -> None:
    """Draw the first regions, (image, box `(x, y, width, height)`, title), on one sheet; none for none."""
    from matplotlib.patches import Rectangle

    regions = regions[: COLUMNS * ROWS]
    if not regions:
        return
    rows = (len(regions) + COLUMNS - 1) // COLUMNS
    figure = new_figure(2 * COLUMNS, 2.3 * rows)
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.axis('off')
    for axes, (file, (x, y, width, height), title) in zip(grid.flat, regions, strict=False):
        with Image.open(file) as image:
            axes.imshow(image.convert('RGB'))
        margin = max(MARGIN * max(width, height), 8)
        axes.set(xlim=(x - margin, x + width + margin), ylim=(y + height + margin, y - margin))
        axes.add_patch(Rectangle((x, y), width, height, fill=False, color='yellow', linewidth=1.5))
        axes.set_title(title, fontsize=7)
    save_figure(figure, path)
