"""The report as one HTML page: plotly's script, styles and data are inside, and the network is forbidden."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from .grouping import Results
from .markdown import NO_ROWS
from .sections import Section, notice, summary
from .styles import family_styles
from .tables import Cell, Column, Table

_HERE = Path(__file__).parent


def write_page(results: Results, sections: Sequence[Section], title: str) -> str:
    """The whole page; every text in it is escaped by the template, which trusts only our own files and plotly's."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= dict(choices=_choices, sort_key=_sort_key)
    has_plots = any(block.plots for section in sections for block in section.blocks)
    return environment.get_template('page.html.j2').render(
        title=title,
        notice=notice(results),
        summary=summary(results),
        sections=sections,
        families=family_styles(results.families) if has_plots else {},
        no_rows=NO_ROWS,
        css=_own('page.css'),
        tables_js=_own('tables.js'),
        plots_js=_own('plots.js') if has_plots else '',
        plotly_js=Markup(get_plotlyjs()) if has_plots else '',
    )


def _own(name: str) -> Markup:
    return Markup((_HERE / name).read_text(encoding='utf-8'))


def _choices(table: Table, index: int) -> list[tuple[str, int]]:
    """Texts of a column, with how many rows have each; a choice among one is none."""
    column = table.columns[index]
    counts: dict[str, int] = {}
    for row in table.rows:
        text = column.format(row[index])
        counts[text] = counts.get(text, 0) + 1
    return sorted(counts.items()) if column.filtered and len(counts) > 1 else []


def _sort_key(column: Column, cell: Cell) -> Any:
    """What a number is sorted by, where it is not the text that is shown."""
    return '' if column.digits is None or isinstance(cell, str) or cell is None else repr(cell)
