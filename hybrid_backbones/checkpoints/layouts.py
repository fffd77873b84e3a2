"""Key layouts: how the tensors of another publisher's files map to the authors' names.

A family lists the layouts of its files beside its network, as `checkpoint_layouts`. A file is recognized by its keys,
and its tensors are renamed and concatenated before anything else reads them.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

# Replaces `head.` in files of OpenMMLab's classifiers, whose trunk is under `backbone.`.
OPENMMLAB_HEAD = 'openmmlab_head.'


@dataclass(frozen=True)
class KeyLayout:
    """Names of one publisher.

    Args:
        marker: Pattern that a key of such a file matches, and no key of another layout of the family.
        renames: Names of the authors, as (pattern, replacement) for re.sub, applied in this order.
        absent: Pattern that no key of such a file matches; '' for none.
        concatenated: Last parts of keys whose tensors are concatenated along their first axis, in this order, and the
            last part that the result has: `(('to_qk.weight', 'to_v.weight'), 'to_qkv.weight')`.
        transposed: Whether all matrices are stored as (in, out), as Paddle's.
    """

    marker: str
    renames: tuple[tuple[str, str], ...]
    absent: str = ''
    concatenated: tuple[tuple[tuple[str, ...], str], ...] = ()
    transposed: bool = False

    def recognizes(self, keys: Iterable[str]) -> bool:
        """Whether a file with these keys has this layout."""
        keys = list(keys)
        absent = bool(self.absent) and any(re.search(self.absent, key) for key in keys)
        return not absent and any(re.search(self.marker, key) for key in keys)

    def translate(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of a file of this layout under the authors' names."""
        translated = dict(state)
        if self.transposed:
            translated |= {key: value.t().contiguous() for key, value in state.items() if value.ndim == 2}
        for parts, whole in self.concatenated:
            for key in [key for key in translated if key.endswith(parts[0])]:
                stem = key.removesuffix(parts[0])
                if all(stem + part in translated for part in parts):
                    translated[stem + whole] = torch.cat([translated.pop(stem + part) for part in parts])
        return {rename(key, self.renames): value for key, value in translated.items()}


def rename(key: str, renames: Iterable[tuple[str, str]]) -> str:
    """`key` after the (pattern, replacement) pairs of `renames`, in their order."""
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key


def with_authors_names(state: Mapping[str, Tensor], layouts: Mapping[str, KeyLayout]) -> dict[str, Tensor]:
    """Tensors of a file under the authors' names, whichever of `layouts` it has.

    The head of an OpenMMLab classifier whose layout is not known is left out.
    """
    for layout in layouts.values():
        if layout.recognizes(state):
            return layout.translate(state)
    return {key: value for key, value in state.items() if not key.startswith(OPENMMLAB_HEAD)}
