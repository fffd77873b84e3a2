"""Tables for terminals, files and pipes."""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

# Characters per line of files and pipes, which have no width of their own.
_WIDTH = 300


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table to the standard output.

    Args:
        columns: Headings. The first column is left-aligned, the others are right-aligned; a column without a heading,
            such as one of remarks, is left-aligned too.
        rows: Cells, as many as there are columns.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, column in enumerate(columns):
        table.add_column(column, justify='right' if i and column else 'left')
    for row in rows:
        table.add_row(*map(Text, row))  # Text: square brackets are no markup
    Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False).print(table)
