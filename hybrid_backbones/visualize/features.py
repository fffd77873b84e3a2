"""Feature pyramids as images: the main directions of the channels as colours, and how strong the channels are."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .backbone import load_network
from .figures import check_png, new_figure, save_figure
from .images import map_stride, read_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ABOUT = """above: first three principal
components as red, green, blue

below: mean of the channels'
absolute values"""


def draw_features(
    name: str,
    image: str | Path,
    out: str | Path,
    checkpoint: str | Path | None = None,
    size: tuple[int, int] | None = None,
    options: dict[str, Any] | None = None,
) -> Path:
    """The image and every level of the pyramid beside it; written to the PNG `out`.

    Above, the first three principal components of a level's channels as red, green and blue; below, the mean of the
    channels' absolute values, coloured from the level's smallest to its largest.

    Args:
        name: Network or config, see :func:`hybrid_backbones.visualize.backbone.load_network`.
        image: File.
        out: PNG file.
        checkpoint: Weights.
        size: Height and width in pixels that the image is resized to; None leaves it as it is.
        options: Arguments of the backbone's constructor.

    Raises:
        FileNotFoundError: No image, or no config.
        ValueError: Not an image, unknown network or option, image below the network's smallest, or `out` not a PNG.
        CheckpointError: The checkpoint is damaged or of another architecture.
    """
    check_png(out)
    picture = read_image(image, size)
    network = load_network(name, checkpoint, options)
    with torch.no_grad():
        maps = network.backbone(network.input_of(picture))
    strides = getattr(network.backbone, 'out_strides', None) or [
        map_stride(picture.shape[:2], m.shape[2:]) for m in maps
    ]
    height, width = picture.shape[:2]
    columns = len(maps) + 1
    # Wide enough for its title.
    cell = 3.0 if height <= width else max(1.7, 3.0 * (width / height) ** 0.5)
    figure = new_figure(cell * columns, 2 * (cell * height / width + 0.35) + 0.4)
    grid = figure.subplots(2, columns, squeeze=False)
    show_map(grid[0, 0], picture, picture.shape, f'image\n{width} x {height} pixels')
    grid[1, 0].set_axis_off()
    grid[1, 0].text(0.5, 0.5, _ABOUT, ha='center', va='center', fontsize=9, transform=grid[1, 0].transAxes)
    for i, (level, stride) in enumerate(zip(maps, strides, strict=True)):
        title = f'level {i}, stride {stride}\n{level.shape[3]} x {level.shape[2]}, {level.shape[1]} channels'
        show_map(grid[0, i + 1], pca_colours(level[0]), picture.shape, title, stride)
        strength = level[0].abs().mean(0).numpy()
        show_map(grid[1, i + 1], strength, picture.shape, f'{strength.min():.3g} to {strength.max():.3g}', stride)
    figure.suptitle(network.title, fontsize=10)
    return save_figure(figure, out)


def show_map(
    axes: 'Axes',
    values: np.ndarray,
    size: tuple[int, ...],
    title: str,
    stride: int = 1,
    low: float | None = None,
    cmap: str = 'viridis',
) -> None:
    """A map over the place of its image, one square of `stride` pixels for each of its cells.

    Args:
        axes: Where to.
        values: (H, W), or colours (H, W, 3).
        size: Height and width of the image in pixels.
        title: Above it.
        stride: Of the map; one that does not divide the image's size reaches beyond its border, and is cut there.
        low: Value at the lower end of the colours; the smallest by default. The upper end is the largest.
        cmap: Colours of (H, W).
    """
    extent = (0, values.shape[1] * stride, values.shape[0] * stride, 0)
    axes.imshow(values, extent=extent, interpolation='nearest', cmap=cmap, vmin=low)
    axes.set(xlim=(0, size[1]), ylim=(size[0], 0), xticks=[], yticks=[], aspect='equal')
    axes.set_title(title, fontsize=8)


def pca_colours(level: Tensor) -> np.ndarray:
    """Principal components of a map's channels as colours, the first as red.

    Args:
        level: (C, H, W).

    Returns:
        (H, W, 3) from 0 to 1; a component that does not vary is 0.5 everywhere.
    """
    points = level.flatten(1).t().double()
    points = points - points.mean(0)
    variances, axes = torch.linalg.eigh(points.t() @ points / len(points))
    axes, variances = axes.flip(1)[:, :3], variances.flip(0)[:3]
    # The sign of an axis is arbitrary: its largest entry is made positive, so that pictures repeat.
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    scores = points @ axes
    # Percentiles 1 and 99: single cells at the border would set the scale.
    low, high = scores.quantile(0.01, 0), scores.quantile(0.99, 0)
    varies = variances > 1e-12 * max(float(level.double().square().mean()), 1e-30)
    scores = torch.where(varies, (scores - low) / (high - low).clamp_min(1e-30), 0.5).clamp(0, 1)
    colours = torch.full((len(points), 3), 0.5, dtype=torch.float64)
    colours[:, : scores.shape[1]] = scores
    return colours.unflatten(0, level.shape[1:]).numpy()
