"""Effective receptive fields: which pixels a cell of a feature map depends on, and how much.

Luo et al., Understanding the effective receptive field (arXiv 1701.04128), averaged over inputs as in RepLKNet's paper
(arXiv 2203.06717, figure 1 and table 10). Both derive the sum of the channels, which behind a LayerNorm is constant;
here every input has a random sign for each channel instead, so that no channels cancel on average.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbone import Network, load_network, takes
from .figures import check_png, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHARE = 0.95


@dataclass
class Field:
    """What a map's central cell depends on.

    Attributes:
        values: (H, W), absolute gradients by the pixels, summed over the channels of both ends.
        centre: Row and column of the cell's centre, in pixels.
        stride: Pixels of a cell, the larger of its height and width.
    """

    values: Tensor
    centre: tuple[float, float]
    stride: float


def receptive_fields(backbone: nn.Module, size: tuple[int, int], samples: int, seed: int = 0) -> list[Field]:
    """The field of every map of a network, averaged over inputs of normal noise.

    Args:
        backbone: (1, 3, H, W) to maps (1, C, h, w); in the dtype of its parameters.
        size: Height and width of the inputs.
        samples: Inputs to average over.
        seed: Of the inputs.
    """
    dtype = next(backbone.parameters()).dtype
    generator = torch.Generator().manual_seed(seed)
    fields: dict[int, Field] = {}
    for _ in range(samples):
        x = torch.randn(1, 3, *size, generator=generator).to(dtype).requires_grad_()
        with torch.enable_grad():
            maps = backbone(x)
        for i, level in enumerate(maps):
            cell = tuple(side // 2 for side in level.shape[2:])
            channels = level[0][:, cell[0], cell[1]]
            signs = torch.randint(0, 2, channels.shape, generator=generator).to(dtype) * 2 - 1
            (gradient,) = torch.autograd.grad((channels * signs).sum(), x, retain_graph=i + 1 < len(maps))
            cells = [side / of_map for side, of_map in zip(size, level.shape[2:], strict=True)]
            centre = tuple((at + 0.5) * length - 0.5 for at, length in zip(cell, cells, strict=True))
            field = fields.setdefault(i, Field(torch.zeros(size, dtype=torch.float64), centre, max(cells)))
            field.values += gradient[0].abs().sum(0).double() / samples
    return list(fields.values())


def smallest_square(field: Field, share: float = SHARE) -> tuple[int, int, int]:
    """The smallest square around the cell that holds a share of the sum.

    Convolutions of even strides have their centre off the cell's; the square may lie off it by half a cell.

    Args:
        field: Not all zero.
        share: Above 0, up to 1.

    Returns:
        Its side, and the row and column of its first pixel; it may reach beyond the input.
    """
    # The sum over any rectangle is made of four entries.
    sums = F.pad(field.values.cumsum(0).cumsum(1), (1, 0, 1, 0))
    # Rounding must not exclude a share of 1.
    wanted = float(sums[-1, -1]) * share * (1 - 1e-9)

    def best(side: int) -> tuple[float, int, int]:
        """What the best square of that side holds, and its first row and column."""
        starts = [_starts(centre, field.stride / 2, side) for centre in field.centre]
        (top, bottom), (left, right) = (
            (start.clamp(0, length), (start + side).clamp(0, length))
            for start, length in zip(starts, field.values.shape, strict=True)
        )
        held = (sums[bottom][:, right] - sums[top][:, right]) - (sums[bottom][:, left] - sums[top][:, left])
        row, column = divmod(int(held.argmax()), len(starts[1]))
        return float(held.max()), int(starts[0][row]), int(starts[1][column])

    low, high = 1, 2 * max(field.values.shape)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if best(middle)[0] >= wanted else (middle + 1, high)
    return low, *best(low)[1:]


def _starts(centre: float, slack: float, side: int) -> Tensor:
    """First pixels of the stretches of `side` pixels whose middle is within `slack` of `centre`."""
    first = centre - (side - 1) / 2
    return torch.arange(math.ceil(first - slack), math.floor(first + slack) + 1)


def draw_receptive_fields(
    names: Sequence[str],
    out: str | Path,
    size: tuple[int, int] = (512, 512),
    samples: int = 8,
    options: dict[str, Any] | None = None,
) -> Path:
    """Effective receptive field of every stage, a row for every network; written to the PNG `out`.

    Args:
        names: Networks or configs, or `NAME=CHECKPOINT`.
        out: PNG file.
        size: Height and width of the inputs.
        samples: Inputs to average over.
        options: Arguments of the backbones' constructors; each goes to those networks that take it.

    Raises:
        ValueError: Unknown network, an option that none takes, no sample, or `out` not a PNG.
        FileNotFoundError: No such config.
        CheckpointError: A checkpoint is damaged or of another architecture.
    """
    check_png(out)
    if samples < 1:
        raise ValueError(f'{samples} samples: expected at least one input to average over')
    networks = _load(names, options or {})
    fields = [receptive_fields(network.backbone, size, samples) for network in networks]
    rows, columns = len(networks), max(map(len, fields))
    cell = 2.9
    figure = new_figure(cell * columns, rows * (cell * size[0] / size[1] + 0.4) + 0.7)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, network, stages in zip(grid, networks, fields, strict=True):
        strides = getattr(network.backbone, 'out_strides', None) or [round(field.stride) for field in stages]
        for i, (axes, field, stride) in enumerate(zip(row, stages, strides, strict=False)):
            image = _draw_field(axes, field, f'{network.title}\nlevel {i}, stride {stride}')
    bar = figure.colorbar(image, ax=grid, location='bottom', shrink=0.4, aspect=40, extend='min')
    bar.set_label('gradient by the pixel, relative to the largest', fontsize=8)
    return save_figure(figure, out)


def _load(names: Sequence[str], options: dict[str, Any]) -> list[Network]:
    pairs = [(*name.split('=', 1), None)[:2] for name in names]
    unknown = [option for option in options if not any(takes(name, option) for name, _ in pairs)]
    if unknown:
        raise ValueError(f'none of {", ".join(name for name, _ in pairs)} has an option {", ".join(unknown)}')
    return [
        load_network(name, checkpoint, {key: value for key, value in options.items() if takes(name, key)})
        for name, checkpoint in pairs
    ]


def _draw_field(axes: 'Axes', field: Field, title: str) -> Any:
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    height, width = field.values.shape
    side, top, left = smallest_square(field)
    relative = (field.values / field.values.max()).numpy()
    # The logarithm of zero would be drawn as a hole.
    image = axes.imshow(np.maximum(relative, 1e-12), norm=LogNorm(1e-5, 1), cmap='magma', interpolation='nearest')
    axes.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, ec='white', lw=1, ls='--'))
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axes.set_title(f'{title}: {SHARE:.0%} in {side} x {side} pixels', fontsize=8)
    return image
