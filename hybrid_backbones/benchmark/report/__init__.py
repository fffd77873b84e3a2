"""Reports of results: CSV, Markdown with pictures, and one HTML page that needs no network."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ..._files import write_whole
from ..rows import Row

__all__ = ['write_report']


def write_report(rows: Sequence[Row], folder: Path, title: str) -> list[Path]:
    """Write `report.html`, `report.md`, its pictures and `report.csv` to `folder`, which is made if need be.

    Args:
        rows: As `rows.read` gives them; none at all is a report too, which says so.
        folder: Files of an earlier report there are replaced.
        title: Heading of page and Markdown, any text.

    Returns:
        The files, the page first.

    Raises:
        ImportError: plotly is missing, and what to install; nothing is written.
        OSError: A file cannot be written; those named before it are complete.
    """
    if find_spec('plotly') is None:
        raise ImportError("the report's plots need plotly: pip install 'hybrid_backbones[transfer]'", name='plotly')
    from .flat import write_csv
    from .grouping import Results
    from .markdown import write_markdown
    from .page import write_page
    from .pictures import draw_pictures
    from .sections import sections

    folder.mkdir(parents=True, exist_ok=True)
    results = Results(rows)
    found = sections(results)
    page = write_whole(folder / 'report.html', write_page(results, found, title))
    table = write_whole(folder / 'report.csv', write_csv(rows))
    pictures = draw_pictures(results, folder)
    markdown = write_whole(folder / 'report.md', write_markdown(results, found, title, pictures))
    return [page, markdown, table, *pictures.values()]
