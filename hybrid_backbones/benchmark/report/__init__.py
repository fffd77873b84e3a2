"""Reports of results: CSV, Markdown with pictures, and a self-contained HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..._files import write_whole
from ..images import Images
from ..rows import Row
from .flat import write_csv
from .grouping import Results
from .markdown import write_markdown
from .page import write_page
from .pictures import draw_pictures
from .sections import sections

__all__ = ['write_report']


def write_report(
    rows: Sequence[Row], folder: Path, title: str, images: Mapping[str, Images] | None = None
) -> list[Path]:
    """Write `report.html`, `report.md`, its pictures and `report.csv` to `folder`, which is created if necessary.

    Args:
        rows: From `rows.read`; without rows, the report says that there are none.
        folder: Files of an earlier report are replaced.
        title: Heading of the page and of Markdown, any text.
        images: From `images.images_of_runs`; without them, backbones are not distinguished.

    Returns:
        The files, the page first.

    Raises:
        OSError: A file cannot be written; earlier files are complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results = Results(rows, images)
    found = sections(results)
    page = write_whole(folder / 'report.html', write_page(results, found, title))
    table = write_whole(folder / 'report.csv', write_csv(results.rows))
    pictures = draw_pictures(results, folder)
    markdown = write_whole(folder / 'report.md', write_markdown(results, found, title, pictures))
    return [page, markdown, table, *pictures.values()]
