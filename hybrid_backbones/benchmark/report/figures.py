"""The report's plots as JSON for plotly, which the page draws when they come into view.

Backgrounds are transparent; plots.js sets the colours of text and grids, so that they follow the page's colour scheme.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import plotly.graph_objects as go

from ...profiling.growth import growth_exponent
from ..rows import Row
from .grouping import AXES, Axis, Group, family_of
from .styles import GREY, Style
from .tables import metric_title, pareto_fronts, spans_decade

# Of a curve: about one for every three pixels.
MAX_POINTS = 100
# A legend with more lines would be longer than its plot; the table has them all.
MAX_LEGEND_LINES = 16
_DASHES = ('solid', 'dash', 'dot', 'dashdot', 'longdash')


@dataclass(frozen=True)
class Plot:
    """A plot for plotly, with a description for screen readers.

    Attributes:
        height: In CSS pixels.
    """

    title: str
    description: str
    json: str
    height: int
    families: frozenset[str]


def pareto(groups: Sequence[Group], axis: Axis, styles: dict[str, Style]) -> Plot | None:
    """Scores of a setting against a cost; None if no cost is known."""
    known = [group for group in groups if group.cost(axis) is not None]
    if not known:
        return None
    logarithmic = spans_decade([group.cost(axis) for group in known])
    figure = _figure(axis.title, f'{metric_title(known[0].metric)}, %', log_x=logarithmic)
    for front in pareto_fronts(groups, axis):
        figure.add_scatter(
            x=[g.cost(axis) for g in front],
            y=[g.mean for g in front],
            mode='lines',
            line=dict(color=GREY, width=1.5, dash='dot', shape='hv'),
            hoverinfo='skip',
        )
    families = dict.fromkeys(group.candidate.family for group in known)
    for family in families:
        members = [group for group in known if group.candidate.family == family]
        figure.add_scatter(
            x=[g.cost(axis) for g in members],
            y=[g.mean for g in members],
            error_y=dict(array=[g.deviation or 0 for g in members], thickness=1, width=3, color=styles[family].colour),
            mode='markers',
            marker=styles[family].marker(10),
            customdata=[_group_hover(g) for g in members],
            hovertemplate='%{customdata}<extra></extra>',
        )
    score = metric_title(known[0].metric)
    title = f'{score} against {axis.title.split(",")[0]}'
    return _plot(
        figure, title, f'{known[0].setting.label}: {title}, {len(known)} backbones; numbers in the table', 320, families
    )


def agreement(points: Sequence[tuple[str, str, float, float]], x: str, y: str, styles: dict[str, Style]) -> Plot:
    """Points (hover text, family, x, y) in percent, with the line `x = y`."""
    figure = _figure(f'{x}, %', f'{y}, %', log_x=False)
    ends = [min(min(p[2:]) for p in points), max(max(p[2:]) for p in points)]
    figure.add_scatter(x=ends, y=ends, mode='lines', line=dict(color=GREY, width=1.5, dash='dot'), hoverinfo='skip')
    families = dict.fromkeys(family for _, family, _, _ in points)
    for family in families:
        members = [point for point in points if point[1] == family]
        figure.add_scatter(
            x=[p[2] for p in members],
            y=[p[3] for p in members],
            mode='markers',
            marker=styles[family].marker(10),
            customdata=[_hover(p[0], f'{x} {p[2]:.1f} %', f'{y} {p[3]:.1f} %') for p in members],
            hovertemplate='%{customdata}<extra></extra>',
        )
    title = f'{y} against {x}'
    return _plot(figure, title, f'{title}, {len(points)} pairs; numbers in the table', 320, families)


def z_scores(rows: Sequence[tuple[str, str, float, dict[str, float]]], styles: dict[str, Style]) -> Plot:
    """A line for each candidate (label, family, mean, z by setting), the best on top; the large marker is the mean."""
    figure = _figure('z-score', '', log_x=False)
    heights = range(len(rows), 0, -1)
    for height, (label, family, mean, by_setting) in zip(heights, rows, strict=True):
        colour = styles[family].colour
        figure.add_scatter(
            x=list(by_setting.values()),
            y=[height] * len(by_setting),
            mode='markers',
            marker=dict(symbol='line-ns-open', size=11, color=colour, line=dict(width=2, color=colour)),
            customdata=[_hover(label, s, f'z {z:+.2f}') for s, z in by_setting.items()],
            hovertemplate='%{customdata}<extra></extra>',
        )
        figure.add_scatter(
            x=[mean],
            y=[height],
            mode='markers',
            marker=styles[family].marker(11),
            customdata=[_hover(label, f'mean z {mean:+.2f} over {len(by_setting)} settings')],
            hovertemplate='%{customdata}<extra></extra>',
        )
    labels = [_shortened(label) for label, *_ in rows]
    figure.update_yaxes(tickvals=list(heights), ticktext=labels, range=[0.4, len(rows) + 0.6], showgrid=False)
    figure.update_xaxes(zeroline=True)
    description = f'z-scores of {len(rows)} backbones; numbers in the table'
    return _plot(figure, 'z-scores', description, 110 + 24 * len(rows), (family for _, family, _, _ in rows))


def growth(title: str, lines: Sequence[tuple[str, list[float], list[float]]], styles: dict[str, Style]) -> Plot:
    """Lines (backbone, pixels, values) on logarithmic axes, with their exponents in the legend."""
    figure = _figure('pixels', title, log_x=True)
    figure.update_yaxes(type='log', dtick='D2')
    figure.update_xaxes(tickformat='~s')
    members: Counter[str] = Counter()
    for name, pixels, values in lines:
        family = family_of(name)
        style, dash = styles[family], _DASHES[members[family] % len(_DASHES)]
        members[family] += 1
        exponent = growth_exponent(pixels, values)
        in_legend, in_hover = ('', '') if exponent is None else (f': {exponent:.2f}', f'grows as pixels^{exponent:.2f}')
        figure.add_scatter(
            name=_shortened(name) + in_legend,
            x=pixels,
            y=values,
            mode='lines+markers',
            line=dict(color=style.colour, width=1.5, dash=dash),
            marker=style.marker(7),
            customdata=[
                _hover(name, f'{_si(x)} pixels', f'{title}: {y:.4g}', in_hover)
                for x, y in zip(pixels, values, strict=True)
            ],
            hovertemplate='%{customdata}<extra></extra>',
        )
    height = 340
    if len(lines) <= MAX_LEGEND_LINES:
        legend_height = 20 * len(lines) + 12
        height += legend_height
        figure.update_layout(
            showlegend=True,
            legend=dict(x=0, y=-70 / (height - legend_height - 90), yanchor='top', maxheight=legend_height),
        )
    plotted = f'{title.split(",")[0]} against pixels'
    return _plot(figure, plotted, f'{plotted}, {len(lines)} backbones; exponents in the table', height, members)


def curves(name: str, runs: Sequence[tuple[str, Row]], styles: dict[str, Style]) -> Plot:
    """One curve of several runs (label, row) over iterations; dashed for runs that did not finish."""
    figure = _figure('iteration', metric_title(name), log_x=False)
    families = {family_of(row['identity']['backbone']) for _, row in runs}
    figure.update_xaxes(tickformat='~s')
    for label, row in runs:
        points = thinned(row['curves'][name])
        style = styles[family_of(row['identity']['backbone'])]
        figure.add_scatter(
            name=_hover(label),
            x=[x for x, _ in points],
            y=[float(f'{y:.4g}') for _, y in points],
            mode='lines' if len(points) > 20 else 'lines+markers',
            line=dict(color=style.colour, width=1.5, dash='solid' if row['state'] == 'finished' else 'dash'),
            marker=style.marker(6),
            hovertemplate='%{fullData.name}<br>iteration %{x}<br>%{y}<extra></extra>',
        )
    return _plot(figure, metric_title(name), f'{name} over iterations, {len(runs)} runs', 300, families)


def thinned(points: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    """Evenly spaced points of a long curve, including the last."""
    step = -(-len(points) // MAX_POINTS)
    return [*points[:-1:step], points[-1]] if points else []


def _group_hover(group: Group) -> str:
    score = f'{metric_title(group.metric)} {group.mean:.2f} %'
    if group.deviation is not None:
        score += f' ± {group.deviation:.2f} ({len(group.rows)} seeds)'
    costs = [f'{axis.title.split(",")[0]} {cost:,.1f}{axis.title.split(",")[1]}' for axis, cost in _costs(group)]
    return _hover(group.label, score, *costs)


def _costs(group: Group) -> list[tuple[Axis, float]]:
    return [(axis, cost) for axis in AXES if (cost := group.cost(axis)) is not None]


def _hover(first: str, *others: str) -> str:
    """Hover text, escaped, since plotly interprets HTML."""
    return '<br>'.join([f'<b>{_escaped(first)}</b>', *(_escaped(other) for other in others if other)])


def _shortened(text: str) -> str:
    """Shortened and escaped, for legends and axes."""
    return _escaped(text if len(text) <= 28 else f'{text[:27]}…')


def _escaped(text: str) -> str:
    return escape(text, quote=False)


def _si(value: float) -> str:
    return f'{value / 1e6:.2f} M' if value >= 1e6 else f'{value / 1e3:.0f} k'


def _figure(x: str, y: str, *, log_x: bool) -> go.Figure:
    figure = go.Figure(layout=dict(template={}, showlegend=False, hovermode='closest', dragmode='zoom'))
    figure.update_layout(
        margin=dict(l=8, r=12, t=30, b=8),
        paper_bgcolor='rgba(0,0,0,0)',
        plot_bgcolor='rgba(0,0,0,0)',
        font=dict(size=12),
        hoverlabel=dict(align='left'),
    )
    # By default plotly labels ticks between the decades of a logarithmic axis with their first digit only.
    common = dict(automargin=True, zeroline=False, ticks='outside', ticklen=4, showline=True, tickformat='~r')
    figure.update_xaxes(title=dict(text=x, standoff=8), nticks=6, tickangle=0, **common)
    if log_x:
        figure.update_xaxes(type='log', dtick='D2')
    return figure.update_yaxes(title=dict(text=y, standoff=8), **common)


def _plot(figure: go.Figure, title: str, description: str, height: int, families: Iterable[str]) -> Plot:
    # The JSON stands inside a <script> and must not contain its closing tag.
    return Plot(title, description, figure.to_json().replace('<', '\\u003c'), height, frozenset(families))
