"""Attention maps: the weights that a pixel or the class token gives to the image, head by head."""

from pathlib import Path
from typing import Any

import numpy as np

from .attention_weights import AttentionMap, attention_of
from .backbone import load_network
from .features import show_map
from .figures import check_png, new_figure, save_figure
from .images import map_stride, read_image

_A_ROW = 6


def draw_attention(
    name: str,
    image: str | Path,
    out: str | Path,
    block: int = -1,
    point: tuple[int, int] | None = None,
    checkpoint: str | Path | None = None,
    size: tuple[int, int] | None = None,
    options: dict[str, Any] | None = None,
) -> Path:
    """The image and, for every head, the weights of one query over it; written to the PNG `out`.

    ConViT's gated layers show a head's attention by content, by position, and as the gate mixes them.

    Args:
        name: Network or config, see :func:`hybrid_backbones.visualize.backbone.load_network`.
        image: File.
        out: PNG file.
        block: Attention layer, counted from 0; negative from the last.
        point: Row and column of the pixel that asks, of the image as it is resized; None for the class token where
            the layer has one, else the centre.
        checkpoint: Weights.
        size: Height and width in pixels that the image is resized to; None leaves it as it is.
        options: Arguments of the backbone's constructor.

    Raises:
        FileNotFoundError: No image, or no config.
        ValueError: A network without attention, `block` or `point` out of range, not an image, or `out` not a PNG.
        CheckpointError: The checkpoint is damaged or of another architecture.
    """
    check_png(out)
    picture = read_image(image, size)
    network = load_network(name, checkpoint, options)
    found = attention_of(network.backbone, network.input_of(picture), block, point)
    height, width = picture.shape[:2]
    panels = _panels(found)
    # The image has a column of its own. A row of gated layers holds two heads of three pictures.
    columns = min(_A_ROW, len(panels))
    rows = -(-len(panels) // columns)
    # Wide enough for its title.
    cell = 2.4 if height <= width else max(1.6, 2.4 * (width / height) ** 0.5)
    figure = new_figure(cell * (columns + 1), rows * (cell * height / width + 0.4) + 0.3)
    grid = figure.subplots(rows, columns + 1, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    show_map(grid[0, 0], picture, picture.shape, 'image')
    stride = map_stride((height, width), found.weights.shape[1:])
    shown = list(grid[:, 1:].flat)[: len(panels)]
    for axes, (title, weights) in zip(shown, panels, strict=True):
        show_map(axes, weights, picture.shape, title, stride, low=0, cmap='magma')
    query = 'class token' if found.place is None else f'row {found.place[0]}, column {found.place[1]} of the map'
    if found.place is not None:
        at = point or (height // 2, width // 2)
        for axes in (grid[0, 0], *shown):
            axes.plot(at[1] + 0.5, at[0] + 0.5, marker='+', ms=9, mew=1.5, color='cyan')
    figure.suptitle(f'{network.title}, {found.layer}, query: {query}', fontsize=10)
    return save_figure(figure, out)


def _panels(found: AttentionMap) -> list[tuple[str, np.ndarray]]:
    """Title and weights (H, W) of every picture."""
    panels = []
    for head, weights in enumerate(found.weights):
        kinds = [(kind, part[head]) for kind, part in found.parts.items()]
        mixed = ''
        if found.gate is not None:
            mixed = f'{found.gate[head]:.0%} position'
        elif found.prefix.shape[1]:
            mixed = f'{found.prefix[head].sum():.1%} on class token'
        for kind, part in (*kinds, (mixed, weights)):
            panels.append((f'head {head}, up to {part.max():.2g}\n{kind}'.rstrip(), part.numpy()))
    return panels
