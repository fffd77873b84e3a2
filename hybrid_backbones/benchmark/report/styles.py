"""Colours and symbols of families, distinguishable without colour vision and on light and dark backgrounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Okabe and Ito's palette without yellow and black, which are invisible on one of the backgrounds, and a lighter blue.
_COLOURS = ('#1A80C4', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
# Name in plotly, name in matplotlib, character.
_SYMBOLS = (
    ('circle', 'o', '●'),
    ('square', 's', '■'),
    ('diamond', 'D', '◆'),
    ('triangle-up', '^', '▲'),
    ('triangle-down', 'v', '▼'),
    ('star', '*', '★'),
    ('x', 'X', '✖'),
)
GREY = '#808080'


@dataclass(frozen=True)
class Style:
    """How a family is drawn."""

    colour: str
    symbol: str
    matplotlib_marker: str
    character: str

    def marker(self, size: int) -> dict[str, Any]:
        """plotly's marker."""
        # These symbols have less area at the same size.
        small = self.symbol == 'star' or self.symbol.startswith('triangle')
        return dict(color=self.colour, symbol=self.symbol, size=size * (1.3 if small else 1))


def family_styles(families: Sequence[str]) -> dict[str, Style]:
    """A style for each family; the first 42 differ, as 6 colours and 7 symbols have no common divisor."""
    return {
        family: Style(_COLOURS[i % len(_COLOURS)], *_SYMBOLS[i % len(_SYMBOLS)]) for i, family in enumerate(families)
    }
