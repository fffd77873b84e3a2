"""Curves of losses and metrics: of one run, and of several in one picture."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.runs import Curves, main_metrics, read_scalars, read_work_dir
from .figures import check_png, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_curves(scalars: str | Path, out: str | Path) -> Path:
    """Losses on the left, metrics of the validations on the right, over the iterations; written to the PNG `out`."""
    losses, metrics = read_scalars(scalars)
    figure = new_figure(11, 4)
    left, right = figure.subplots(1, 2)
    for name, curve in sorted(losses.items(), key=lambda item: item[0] != 'loss'):
        total = name == 'loss'
        left.plot(*curve.T, label=name, color='black' if total else None, lw=2 if total else 1)
    left.set(title='training loss', xlabel='iteration', ylim=(0, None))
    for name in main_metrics(metrics):
        right.plot(*metrics[name].T, marker='o', label=name.removeprefix('coco/'))
    right.set(title='validation', xlabel='iteration')
    right.set_ylim(0, 1 if all(curve[:, 1].max() <= 1 for curve in metrics.values()) else 100)
    for axes in (left, right):
        _tidy(axes)
        if axes.lines:
            axes.legend(frameon=False, fontsize=8)
    return save_figure(figure, out)


def compare_runs(work_dirs: Sequence[str | Path], out: str | Path, everything: bool = False) -> Path:
    """Several runs in one picture: a plot for every loss and metric, a colour for every run; written to the PNG `out`.

    Args:
        work_dirs: Work directories of hybrid-backbones train; resumed runs are joined.
        out: PNG file.
        everything: Every part of the loss and every metric, instead of the total loss and the main metrics.

    Raises:
        FileNotFoundError: A folder without the log of a run.
        ValueError: `out` is not a PNG.
    """
    check_png(out)
    runs = {label: read_work_dir(folder) for label, folder in zip(run_labels(work_dirs), work_dirs, strict=True)}
    names = list(dict.fromkeys(name for run in runs.values() for name in _wanted(*run, everything)))
    names.sort(key=lambda name: (not any(name in losses for losses, _ in runs.values()), name != 'loss'))
    columns = min(len(names), 4)
    rows = -(-len(names) // columns)
    figure = new_figure(4 * columns, 3 * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(grid.flat, names, strict=False):
        _plot(axes, name, runs)
    handles = [grid.flat[0].plot([], [], color=f'C{i}', label=label)[0] for i, label in enumerate(runs)]
    figure.legend(handles=handles, loc='outside lower center', ncols=max(1, columns), frameon=False)
    return save_figure(figure, out)


def run_labels(work_dirs: Sequence[str | Path]) -> list[str]:
    """Names of the folders; where two have the same name, with as much of their paths as distinguishes them."""
    paths = [Path(folder).absolute().parts for folder in work_dirs]
    length = 1
    while length < max(map(len, paths)) and max(Counter(parts[-length:] for parts in paths).values()) > 1:
        length += 1
    alike = Counter(parts[-1] for parts in paths)
    return [str(Path(*parts[-length:])) if alike[parts[-1]] > 1 else parts[-1] for parts in paths]


def _wanted(losses: Curves, metrics: Curves, everything: bool) -> list[str]:
    if everything:
        return [*losses, *metrics]
    return [*(name for name in losses if name == 'loss'), *main_metrics(metrics)]


def _plot(axes: 'Axes', name: str, runs: dict[str, tuple[Curves, Curves]]) -> None:
    for i, (losses, metrics) in enumerate(runs.values()):
        # Markers, since a metric may have a single point.
        if name in metrics:
            axes.plot(*metrics[name].T, color=f'C{i}', marker='o', ms=4)
        elif name in losses:
            axes.plot(*losses[name].T, color=f'C{i}', lw=1)
    axes.set(title=name.removeprefix('coco/'), xlabel='iteration', ylim=(0, None))
    _tidy(axes)


def _tidy(axes: 'Axes') -> None:
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
