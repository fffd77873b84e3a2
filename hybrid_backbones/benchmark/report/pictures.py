"""Pictures (PNG) for Markdown: Pareto fronts of each setting, curves, growth with resolution."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...visualize.figures import new_figure, save_figure
from ..rows import Row
from .figures import thinned
from .grouping import AXES, Axis, Group, Results, Setting, family_of, setting_of
from .sections import curve_names, growth_lines
from .styles import GREY, Style, family_styles
from .tables import metric_title, pareto_fronts, spans_decade

# By the anchor of a section and the title of a block; an empty title stands for the whole section.
Pictures = dict[tuple[str, str], Path]
# Backbone, pixels, values.
Line = tuple[str, list[float], list[float]]
# More lines cannot be distinguished in a picture without hover.
MAX_LINES = 16

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis as PlotAxis
    from matplotlib.figure import Figure


def draw_pictures(results: Results, folder: Path) -> Pictures:
    """Draw the pictures that the results have data for, in `folder`."""
    styles = family_styles(results.families)
    pictures = {
        ('settings', setting.label): _pareto(groups, styles, folder / f'pareto_{i}_{_slug(setting)}.png')
        for i, (setting, groups) in enumerate(results.groups.items(), 1)
        if _axes_of(groups)
    }
    if lines := growth_lines(results):
        pictures['growth', ''] = _growth(lines, styles, folder / 'growth.png')
    if drawn := _curves_to_draw(results):
        pictures['curves', ''] = _curves(drawn, styles, folder / 'curves.png')
    return pictures


def _slug(setting: Setting) -> str:
    return re.sub('[^a-z0-9]+', '-', setting.label.lower()).strip('-')[:60]


def _axes_of(groups: Sequence[Group]) -> list[Axis]:
    return [axis for axis in AXES if any(group.cost(axis) is not None for group in groups)]


def _pareto(groups: Sequence[Group], styles: dict[str, Style], out: Path) -> Path:
    axes = _axes_of(groups)
    figure, plots = _grid(len(axes), columns=3)
    for plot, axis in zip(plots, axes, strict=True):
        for front in pareto_fronts(groups, axis):
            costs, means = [group.cost(axis) for group in front], [group.mean for group in front]
            plot.plot(costs, means, ':', color=GREY, drawstyle='steps-post', zorder=1)
        for group in groups:
            if (cost := group.cost(axis)) is not None:
                style = styles[group.candidate.family]
                plot.errorbar(cost, group.mean, group.deviation, fmt=style.matplotlib_marker, color=style.colour, ms=7)
        known = [cost for group in groups if (cost := group.cost(axis)) is not None]
        plot.set(xlabel=axis.title, xscale='log' if spans_decade(known) else 'linear')
        plot.set_ylabel(f'{metric_title(groups[0].metric)}, %')
        if plot.get_xscale() == 'log':
            _set_log_ticks(plot.xaxis)
    figure.suptitle(_without_math(groups[0].setting.label), fontsize=11)
    _legend(figure, styles, {group.candidate.family for group in groups})
    return save_figure(figure, out)


def _smallest(lines: Sequence[Line]) -> list[Line]:
    """All lines, or if there are too many, each family's line with the lowest start."""
    if len(lines) <= MAX_LINES:
        return list(lines)
    lowest: dict[str, Line] = {}
    for line in sorted(lines, key=lambda line: line[2][0]):
        lowest.setdefault(family_of(line[0]), line)
    return list(lowest.values())


def _growth(lines: dict[str, list[Line]], styles: dict[str, Style], out: Path) -> Path:
    figure, plots = _grid(len(lines), columns=2)
    for plot, (title, found) in zip(plots, lines.items(), strict=True):
        for name, pixels, values in _smallest(found):
            style = styles[family_of(name)]
            plot.plot(pixels, values, marker=style.matplotlib_marker, color=style.colour, lw=1.2, ms=5)
        plot.set(ylabel=title, xlabel='pixels', xscale='log', yscale='log')
        for axis in (plot.xaxis, plot.yaxis):
            _set_log_ticks(axis)
    _legend(figure, styles, {family_of(name) for found in lines.values() for name, _, _ in found})
    return save_figure(figure, out)


def _set_log_ticks(axis: 'PlotAxis') -> None:
    """Ticks at 1, 2 and 5 of every decade, as plain numbers."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    axis.set_major_formatter(EngFormatter(sep=''))
    axis.set_minor_locator(NullLocator())


def _curves_to_draw(results: Results) -> list[tuple[Setting, str, list[Row]]]:
    rows = [
        row for row in results.drawn_runs if row['origin'] == 'measured' and any((row.get('curves') or {}).values())
    ]
    drawn = []
    for setting in sorted({setting_of(row) for row in rows}):
        here = [row for row in rows if setting_of(row) == setting]
        for name in curve_names(here, results.metrics.get(setting)):
            drawn.append((setting, name, [row for row in here if row['curves'].get(name)]))
    return drawn


def _curves(drawn: Sequence[tuple[Setting, str, list[Row]]], styles: dict[str, Style], out: Path) -> Path:
    figure, plots = _grid(len(drawn), columns=4)
    for plot, (setting, name, rows) in zip(plots, drawn, strict=True):
        for row in rows:
            style = styles[family_of(row['identity']['backbone'])]
            dash = '-' if row['state'] == 'finished' else '--'
            plot.plot(*zip(*thinned(row['curves'][name]), strict=True), dash, color=style.colour, lw=1)
        plot.set(xlabel='iteration', ylabel=_without_math(metric_title(name)))
        plot.set_title(_without_math(setting.label), fontsize=9)
    _legend(figure, styles, {family_of(row['identity']['backbone']) for _, _, rows in drawn for row in rows})
    return save_figure(figure, out)


def _grid(number: int, columns: int) -> tuple['Figure', list['Axes']]:
    """A figure with `number` plots, at most `columns` in a row."""
    columns = min(number, columns)
    lines = (number + columns - 1) // columns
    figure = new_figure(3.8 * columns, 3 * lines + 0.7)
    plots = list(figure.subplots(lines, columns, squeeze=False).flat)
    for plot in plots[number:]:
        plot.set_axis_off()
    for plot in plots[:number]:
        plot.grid(alpha=0.3)
        plot.spines[['top', 'right']].set_visible(False)
    return figure, plots[:number]


def _legend(figure: 'Figure', styles: dict[str, Style], families: set[str]) -> None:
    shown = {family: style for family, style in styles.items() if family in families}
    handles = [
        figure.axes[0].plot([], [], style.matplotlib_marker, color=style.colour, label=_without_math(family))[0]
        for family, style in shown.items()
    ]
    columns = int(figure.get_figwidth() / 1.3)  # inches for the longest name
    labels = list(map(_without_math, shown))
    figure.legend(handles, labels, loc='outside lower center', ncols=columns, frameon=False, fontsize=9)


def _without_math(text: str) -> str:
    """Dollar signs escaped, with which matplotlib delimits formulas."""
    return text.replace('$', r'\$')
