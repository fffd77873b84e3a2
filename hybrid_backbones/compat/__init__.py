"""OpenMMLab on current PyTorch and NumPy, without a compiler.

Each piece is one file, acts only where it is needed and when the module that it mends is imported, and says in the log
of the run what it did. docs/install.md lists them.
"""

from . import amp, checkpoints, distributed, hooks, mmcv_ext, packages, text, versions
from . import notes as _notes
from .notes import note

notes = _notes.notes
__all__ = ['install', 'note', 'notes']

PIECES = (_notes, mmcv_ext, checkpoints, packages, versions, text, amp, distributed)


def install() -> None:
    """Mend what this machine needs; does nothing where nothing is broken, and nothing the second time."""
    if hooks.install():
        for piece in PIECES:
            piece.install()
