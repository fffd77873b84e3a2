"""The report as one HTML page, which contains plotly's script, styles and data and may not use the network."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from .answers import answers
from .grouping import Results
from .markdown import NO_ROWS
from .sections import Section, notice, summary
from .styles import family_styles
from .tables import Cell, Column, Table

_HERE = Path(__file__).parent


def write_page(results: Results, sections: Sequence[Section], title: str) -> str:
    """The whole page; the template escapes every text but this package's own files and plotly's script."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= dict(choices=_choices, sort_key=_sort_key)
    has_plots = any(block.plots for section in sections for block in section.blocks)
    return environment.get_template('page.html.j2').render(
        title=title,
        answers=answers(results),
        notice=notice(results),
        summary=summary(results),
        sections=sections,
        families=family_styles(results.families) if has_plots else {},
        no_rows=NO_ROWS,
        css=_asset('page.css'),
        tables_js=_asset('tables.js'),
        plots_js=_asset('plots.js') if has_plots else '',
        plotly_js=Markup(get_plotlyjs()) if has_plots else '',
    )


def _asset(name: str) -> Markup:
    return Markup((_HERE / name).read_text(encoding='utf-8'))


def _choices(table: Table, index: int) -> list[tuple[str, int]]:
    """Texts of a filtered column with their numbers of rows; none if there is only one text."""
    column = table.columns[index]
    counts = Counter(column.format(row[index]) for row in table.rows)
    return sorted(counts.items()) if column.filtered and len(counts) > 1 else []


def _sort_key(column: Column, cell: Cell) -> Any:
    """The value by which a cell is sorted if it is a number; empty: its text."""
    return '' if column.digits is None or isinstance(cell, str) or cell is None else repr(cell)
