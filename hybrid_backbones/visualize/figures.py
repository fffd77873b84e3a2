"""Figures without a display or global state, and pictures that appear under their name complete or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> 'Figure':
    """A figure of that many inches, not pyplot's: no display is needed, and no global state is touched."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout='constrained')


def check_png(out: str | Path) -> Path:
    """`out` as a path; asked before the work, which would otherwise be done for nothing.

    Raises:
        ValueError: Its name is not a PNG's.
    """
    out = Path(out)
    if out.suffix.lower() != '.png' or out.is_dir():
        raise ValueError(f'{out}: pictures are written as PNG; give the name of a file that ends in .png')
    return out


@contextmanager
def written_whole(out: str | Path) -> Iterator[Path]:
    """A name beside `out` to write to, which becomes `out` when the block ends, and vanishes if it fails."""
    out = check_png(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f'.{out.stem}.{os.getpid()}.partial.png')
    try:
        yield temporary
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def save_figure(figure: 'Figure', out: str | Path) -> Path:
    """Write a figure to the PNG `out`, whose folder is made if need be."""
    with written_whole(out) as path:
        figure.savefig(path, dpi=130)
    return Path(out)
