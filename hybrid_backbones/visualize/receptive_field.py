"""Effective receptive fields: which pixels a place of a feature map depends on, and how much.

Luo et al., Understanding the effective receptive field (arXiv 1701.04128), averaged over inputs as in RepLKNet's paper
(arXiv 2203.06717, figure 1 and table 10). Both derive the sum of the channels, which behind a LayerNorm is constant;
here every input has a random sign for each channel instead, so that no channels cancel on average.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .figures import check_png, new_figure, save_figure
from .networks import Network, load_network, takes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHARE = 0.95


def contributions(backbone: nn.Module, size: tuple[int, int], samples: int, seed: int = 0) -> list[Tensor]:
    """Absolute gradients of the central cell of every map by the pixels of the input.

    Args:
        backbone: (1, 3, H, W) to maps (1, C, h, w); in the dtype of its parameters.
        size: Height and width of the inputs, normal noise.
        samples: Inputs to average over.
        seed: Of the inputs.

    Returns:
        (H, W) for every map, summed over the input's channels.
    """
    dtype = next((p.dtype for p in backbone.parameters()), torch.float32)
    generator = torch.Generator().manual_seed(seed)
    totals: list[Tensor] = []
    for _ in range(samples):
        x = torch.randn(1, 3, *size, generator=generator).to(dtype).requires_grad_()
        with torch.enable_grad():
            maps = backbone(x)
        for i, level in enumerate(maps):
            centre = level[0, :, level.shape[2] // 2, level.shape[3] // 2]
            signs = torch.randint(0, 2, centre.shape, generator=generator).to(dtype) * 2 - 1
            (gradient,) = torch.autograd.grad((centre * signs).sum(), x, retain_graph=i + 1 < len(maps))
            part = gradient[0].abs().sum(0).double() / samples
            totals[i:] = [totals[i] + part] if len(totals) > i else [part]
    return totals


def smallest_square(values: Tensor, share: float = SHARE) -> tuple[int, int, int]:
    """The smallest square, anywhere, that holds a share of the sum.

    Args:
        values: (H, W), none negative.
        share: From 0 to 1.

    Returns:
        Its side, and the row and column of its first corner, which lie outside a map narrower than it.
    """
    height, width = values.shape
    longest = max(height, width)
    # Sums over any rectangle from four entries of a table, in a square frame that a square fits into.
    sums = values.new_zeros(longest + 1, longest + 1, dtype=torch.float64)
    top, left = (longest - height) // 2, (longest - width) // 2
    sums[top + 1 : top + 1 + height, left + 1 : left + 1 + width] = values
    sums = sums.cumsum(0).cumsum(1)
    # Roundings of the table are not to lose a share of 1.
    wanted = float(sums[-1, -1]) * share * (1 - 1e-9)

    def held(side: int) -> Tensor:
        return sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]

    low, high = 1, longest
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if float(held(middle).max()) >= wanted else (middle + 1, high)
    place = int(held(low).argmax())
    return low, place // (longest + 1 - low) - top, place % (longest + 1 - low) - left


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
    fields = [contributions(network.backbone, size, samples) for network in networks]
    rows, columns = len(networks), max(map(len, fields))
    cell = 2.9
    figure = new_figure(cell * columns + 0.9, rows * (cell * size[0] / size[1] + 0.45) + 0.2)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, network, stages in zip(grid, networks, fields, strict=True):
        strides = getattr(network.backbone, 'out_strides', None) or [''] * len(stages)
        for i, (axes, values, stride) in enumerate(zip(row, stages, strides, strict=False)):
            image = _draw_field(axes, values, f'{network.title}\nlevel {i}, stride {stride}')
    bar = figure.colorbar(image, ax=grid, shrink=0.8 if rows == 1 else 0.5, extend='min')
    bar.set_label('gradient, to its largest')
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


def _draw_field(axes: 'Axes', values: Tensor, title: str) -> Any:
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    height, width = values.shape
    side, top, left = smallest_square(values)
    relative = (values / values.max().clamp_min(1e-300)).numpy()
    image = axes.imshow(np.maximum(relative, 1e-12), norm=LogNorm(1e-4, 1), cmap='magma', interpolation='nearest')
    axes.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, ec='white', lw=1, ls='--'))
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axes.set_title(f'{title}: {SHARE:.0%} in {side} x {side} pixels', fontsize=8)
    return image
