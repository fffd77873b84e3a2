"""Which entries of a checkpoint file are the weights of a model: averaged ones, a teacher's, those of a wrapper."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

# What DistributedDataParallel and torch.compile put before or into keys.
_WRAPPERS = re.compile(r'^(?:module\.)+|(?<![^.])_orig_mod\.')
# Counters of averaged models, and of BatchNorm, which only momentum=None reads.
_COUNTERS = ('n_averaged', 'steps', 'num_batches_tracked')
# How deep files nest their weights, and wrappers their networks: `{'state_dict': {'model.teacher.backbone...': ...}}`.
_DEPTH = 3

# Share of a file's tensors and of a model's that must match, by name and shape, for the file to be of the model.
ENOUGH = 0.9


@dataclass(frozen=True)
class Part:
    """Tensors of a file under the names of a model.

    Args:
        entry: Where the file nests them, such as `state_dict` or `ema/params`; '' for its top.
        prefix: What their keys begin with in the file alone, such as `teacher.`.
        target: What their keys begin with in the model alone, such as `backbone.`.
        state: The tensors by the model's names, also those that the model lacks.
        matched: How many of them the model has, with the same shape; like the next two without counters.
        given: How many there are.
        needed: How many the model has.
        partial: Whether the model has tensors outside the target.
    """

    entry: str
    prefix: str
    target: str
    state: dict[str, Tensor]
    matched: int
    given: int
    needed: int
    partial: bool

    @property
    def name(self) -> str:
        """By which `load_part` of a config chooses it: `state_dict/teacher`; `.` for the top of a file."""
        return '/'.join(filter(None, (self.entry, self.prefix.rstrip('.')))) or '.'

    @property
    def fits(self) -> bool:
        """Whether it is the weights of the model, but for a few such as those of another number of classes."""
        return not self.partial and self.matched >= ENOUGH * max(self.given, self.needed)

    def __str__(self) -> str:
        target = f" in the model's {self.target.rstrip('.')}" if self.target else ''
        return f'{self.name}{target}: {self.matched} of its {self.given} tensors match, of {self.needed} of the model'


def find_parts(content: Mapping[str, Any], model: Mapping[str, Tensor], unused: tuple[str, ...] = ()) -> list[Part]:
    """Parts of a file of which anything matches the model, those that match most first.

    Args:
        content: What the file holds: tensors by name, or nested dicts of them.
        model: The model's `state_dict`.
        unused: Prefixes, under the model's names, of tensors that are left out.
    """
    shapes = {key: value.shape for key, value in model.items()}
    parts = [part for entry, state in entries(content) for part in _parts(entry, state, shapes, unused)]
    return sorted(parts, key=lambda part: -part.matched)


def without_wrappers(key: str) -> str:
    """`key` without `module.` and `_orig_mod.`, in any order."""
    while (shorter := _WRAPPERS.sub('', key)) != key:
        key = shorter
    return key


def nonfinite_keys(state: Mapping[str, Tensor]) -> list[str]:
    """Keys of tensors with NaN or infinity."""
    return [key for key, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()]


def entries(content: Mapping[str, Any], path: str = '') -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Tensors by name of every dict that a file nests, with the keys that lead there: `state_dict/teacher`."""
    tensors = {key: _as_tensor(value) for key, value in content.items() if isinstance(key, str) and _is_array(value)}
    if tensors:
        yield path, tensors
    for key, value in content.items():
        if isinstance(key, str) and isinstance(value, Mapping) and path.count('/') < _DEPTH - 1:
            yield from entries(value, f'{path}/{key}' if path else key)


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in 'fiu')


def _as_tensor(value: Tensor | np.ndarray) -> Tensor:
    return value if isinstance(value, Tensor) else torch.from_numpy(value)


def _is_counter(key: str) -> bool:
    return key.rpartition('.')[2] in _COUNTERS


def _parts(
    entry: str, state: dict[str, Tensor], shapes: dict[str, torch.Size], unused: tuple[str, ...]
) -> Iterator[Part]:
    state = {without_wrappers(key): value for key, value in state.items()}
    needed = [key for key in shapes if not _is_counter(key)]
    for prefix, target in _renamings(state, shapes):
        renamed = {target + key.removeprefix(prefix): key for key in state if key.startswith(prefix)}
        renamed = {key: old for key, old in renamed.items() if not key.startswith(unused)}
        own = {key: state[old] for key, old in renamed.items() if key in shapes or not _is_counter(key)}
        counted = {key: value.shape for key, value in own.items() if not _is_counter(key)}
        matched = sum(shapes.get(key) == shape for key, shape in counted.items())
        partial = not all(key.startswith(target) for key in needed)
        yield Part(entry, prefix, target, own, matched, len(counted), len(needed), partial)


def _renamings(state: dict[str, Tensor], shapes: dict[str, torch.Size]) -> list[tuple[str, str]]:
    """(prefix to remove, prefix to add) that make names of the model out of the file's, the likeliest first."""
    targets: dict[str, list[str]] = {}
    for key in shapes:
        if _is_counter(key):
            continue
        child, _, rest = key.partition('.')
        targets.setdefault(key, []).append('')
        targets.setdefault(rest, []).append(f'{child}.')
    counts: Counter[tuple[str, str]] = Counter()
    for key, value in state.items():
        parts = key.split('.')
        for depth in range(min(_DEPTH, len(parts) - 1) + 1):
            rest = '.'.join(parts[depth:])
            prefix = key.removesuffix(rest)
            counts.update((prefix, target) for target in targets.get(rest, ()) if shapes[target + rest] == value.shape)
    best = max(counts.values(), default=0)
    return [renaming for renaming, count in counts.most_common() if count >= best / 2]
