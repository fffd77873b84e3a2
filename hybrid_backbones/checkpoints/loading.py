"""Load weights into a backbone or classifier, and report what matched."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from .errors import CheckpointError
from .layouts import KeyLayout, rename, with_authors_names
from .matching import nonfinite_keys
from .reading import read_state_dict


class Loadable(Protocol):
    """What loading needs to know of a network: a backbone, or one with its classification head."""

    # Layouts of files whose names are not the authors', by publisher.
    checkpoint_layouts: Mapping[str, KeyLayout]
    # How to rename keys of published files, as (pattern, replacement) for re.sub, in this order.
    checkpoint_renames: tuple[tuple[str, str], ...]
    # Patterns of keys, after renaming, that the network does not use.
    checkpoint_ignores: tuple[str, ...]
    # Prefixes of parameters that only dense prediction needs, and that no published file has.
    dense_only_prefixes: tuple[str, ...]

    def convert_checkpoint(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of a file before their keys are renamed, where published ones differ in more than names."""

    def checkpoint_advice(self, state: dict[str, Tensor]) -> str:
        """Advice for a file that does not fit; `state` has its renamed tensors."""

    def state_dict(self, *, keep_vars: bool = ...) -> dict[str, Tensor]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = ...) -> Any: ...


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint gave a network: parameter counts, and keys of tensors."""

    matched: int
    total: int
    ignored: tuple[str, ...]
    initial: tuple[str, ...]

    def __str__(self) -> str:
        line = f'{self.matched:,} of {self.total:,} parameters matched'
        if self.ignored:
            line += f'; ignored {_summary(self.ignored)}'
        if self.initial:
            line += f'; left at initialisation {_summary(self.initial)}'
        return line


def load_pretrained(network: Loadable, source: str | Path) -> LoadReport:
    """Load a checkpoint into the trunk of `network`: all of it, or an error and nothing changed.

    Args:
        network: A backbone or classifier, which says how published tensors map to its own.
        source: Path, URL or `hybrid://NAME`, see :func:`read_state_dict`.

    Returns:
        What matched, also logged in one line.

    Raises:
        CheckpointError: The file is unreadable, or of another family, depth or width; both sides are named.
    """
    # Not at the top: importing MMEngine registers the backbones, which import this module.
    from mmengine.logging import print_log

    state, nest = read_state_dict(source)
    state = with_own_names(network, state)
    own = network.state_dict()
    ignored = {k for k in state if any(re.match(p, k) for p in network.checkpoint_ignores)}
    ignored |= {k for k in state if k.startswith(network.dense_only_prefixes) and k not in own}
    state = {key: value for key, value in state.items() if key not in ignored}
    # A counter that only momentum=None reads; safetensors files often come without it.
    missing = {key for key in own if key not in state and not key.endswith('num_batches_tracked')}
    initial = {key for key in missing if key.startswith(network.dense_only_prefixes)}
    _check(network, source, state, own, missing - initial)
    if keys := nonfinite_keys(state):
        listed = ', '.join(keys[:4])
        raise CheckpointError(
            f'{source} has NaN or infinity in {len(keys)} tensors ({listed} ...). Nothing was loaded.'
        )
    network.load_state_dict(state, strict=False)

    own = network.state_dict(keep_vars=True)
    counts = {name: value.numel() for name, value in own.items() if isinstance(value, nn.Parameter)}
    matched = sum(count for name, count in counts.items() if name in state)
    report = LoadReport(matched, sum(counts.values()), tuple(sorted(ignored)), tuple(sorted(initial)))
    where = f'{source}[{nest}]' if nest else source
    print_log(f'{type(network).__name__} from {where}: {report}', logger='current')
    return report


def with_own_names(network: Loadable, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a published file of any layout under the names of `network`."""
    state = network.convert_checkpoint(with_authors_names(state, network.checkpoint_layouts))
    return {rename(key, network.checkpoint_renames): value for key, value in state.items()}


def _check(
    network: Loadable,
    source: str | Path,
    state: dict[str, Tensor],
    own: dict[str, Tensor],
    missing: set[str],
) -> None:
    unexpected = state.keys() - own.keys()
    shapes = [
        f'{key} is {tuple(state[key].shape)} in the file, {tuple(own[key].shape)} here'
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if not (unexpected or shapes or missing):
        return
    name = type(network).__name__
    common = len(state.keys() & own.keys())
    lines = [f'{source} is not a checkpoint of this {name}: {common} of its {len(state)} keys are known here.']
    if shapes:
        lines.append(f'  {len(shapes)} of another shape: {"; ".join(shapes[:3])}')
    if _is_transposed(state, own):
        lines.append("  Its matrices are transposed, as Paddle's, Keras' and Flax' are: transpose them first.")
    if unexpected:
        lines.append(f'  {len(unexpected)} only in the file: {", ".join(sorted(unexpected)[:5])}')
    if missing:
        lines.append(f'  {len(missing)} only in the network: {", ".join(sorted(missing)[:5])}')
    lines.append(f'{network.checkpoint_advice(state)} Nothing was loaded.')
    raise CheckpointError('\n'.join(lines))


def _is_transposed(state: dict[str, Tensor], own: dict[str, Tensor]) -> bool:
    """Whether all matrices of known names that are not square are those of the network, transposed."""
    pairs = [(state[key].shape, own[key].shape) for key in state.keys() & own.keys() if own[key].ndim == 2]
    pairs = [(given, expected) for given, expected in pairs if expected[0] != expected[1]]
    return bool(pairs) and all(tuple(given) == tuple(expected)[::-1] for given, expected in pairs)


def _summary(keys: Iterable[str]) -> str:
    """`head (4), pred (2)` for keys that begin so."""
    counts: dict[str, int] = {}
    for key in keys:
        top = key.split('.')[0]
        counts[top] = counts.get(top, 0) + 1
    return ', '.join(f'{top} ({count})' for top, count in counts.items())
