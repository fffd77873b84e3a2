"""The families of backbones, as registered: a family added tomorrow gets its marker and every test over the registry.

`pytest -m FAMILY` imports the test files of that name and those that import this module, and no others.
"""

from hybrid_backbones import list_backbones
from hybrid_backbones.registry import VARIANTS


def family_of(name: str) -> str:
    """The file in `hybrid_backbones/backbones` that a variant comes from: `convit` of `convit_t_plus`."""
    return VARIANTS[name][0].__module__.rpartition('.')[2]


NAMES = list_backbones()
FAMILIES = sorted({family_of(name) for name in NAMES})
# One variant of every class, the first that its family registers.
ONE_OF_EACH = list({cls: name for name, (cls, _) in reversed(VARIANTS.items())}.values())[::-1]
