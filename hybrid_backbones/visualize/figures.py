"""Figures without a display or global state, and pictures that appear under their name complete or not at all."""

from pathlib import Path
from typing import TYPE_CHECKING

from .._files import written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> 'Figure':
    """A figure of that many inches, not pyplot's: no display is needed, and no global state is touched."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout='constrained')


def check_png(out: str | Path) -> Path:
    """`out` as a path, checked before the work that it would waste.

    Raises:
        ValueError: Its name is not a PNG's.
    """
    out = Path(out)
    if out.suffix.lower() != '.png' or out.is_dir():
        raise ValueError(f'{out}: pictures are written as PNG; give the name of a file that ends in .png')
    return out


def save_figure(figure: 'Figure', out: str | Path) -> Path:
    """Write a figure to the PNG `out`, whose folder is made if need be."""
    with written_whole(check_png(out)) as path:
        figure.savefig(path, dpi=130)
    return Path(out)
