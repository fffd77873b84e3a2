"""Which of the registered networks a file is of, by its keys and shapes alone.

Every variant is built on the meta device, which takes no memory and milliseconds, with the options that the file
implies; the file's tensors pass through the family's own conversion and renaming, as when they are loaded.
"""

import functools
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn

from .._meta import meta_device
from ..backbones._classifier import Classifier
from ..backbones.factory import find_backbone, list_backbones
from ..checkpoints.errors import CheckpointError
from ..checkpoints.layouts import with_authors_names
from ..checkpoints.loading import with_own_names
from ..checkpoints.reading import read_state_dict

State = dict[str, Tensor]
# A counter that safetensors files often come without.
_COUNTER = 'num_batches_tracked'
# Share of a trunk's parameters that a file must have to count as near.
_MIN_MATCH_RATIO = 0.5
# Number of classes of the heads to compare with: no layer has this width.
_CLASSES = 1009


@dataclass(frozen=True)
class Match:
    """How well a file matches a backbone. Keys are counted after renaming; parameters are those of the trunk.

    Args:
        backbone: Name for `create_backbone`.
        family: Class, for configs.
        options: Those that the file implies.
        fused: Whether the file is of a network folded for inference by `fuse()`, which cannot be trained.
        keys: Number of the file's keys that the network has, with equal shape.
        total_keys: Number of the file's keys, without those that loading ignores.
        parameters: Size of the trunk's parameters that the file has.
        total_parameters: Size of all of them.
        classes: Number of classes of the file's head; None if the head is absent or incomplete.
        missing: Keys of the trunk that the file does not have.
        unexpected: Keys of the file that the network does not know.
        reshaped: Keys of both whose shapes differ.
        equivalent_names: Other backbones that a complete file fits as well: their tensors are the same.
    """

    backbone: str
    family: str
    options: dict[str, Any]
    fused: bool
    keys: int
    total_keys: int
    parameters: int
    total_parameters: int
    classes: int | None
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]
    equivalent_names: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether the whole trunk is there and nothing else but head and what dense prediction adds."""
        return not (self.missing or self.unexpected or self.reshaped)

    @property
    def match_ratio(self) -> float:
        """Share of the trunk's parameters that the file has, 0 to 1."""
        return self.parameters / self.total_parameters

    def __str__(self) -> str:
        options = ''.join(f', {key}={value!r}' for key, value in self.options.items())
        lines = [
            f'{self.backbone} ({self.family}{options}{", folded by fuse()" if self.fused else ""}): '
            f'{self.keys} of {self.total_keys} keys, {self.parameters:,} of {self.total_parameters:,} parameters of '
            f'the trunk ({100 * self.match_ratio:.4g} %), '
            + (f'classifier of {self.classes} classes' if self.classes else 'no complete classifier')
        ]
        for title in ('missing', 'unexpected', 'reshaped'):
            keys = getattr(self, title)
            if keys:
                lines.append(f'  {len(keys)} {title}: {", ".join(keys[:4])}{", ..." if len(keys) > 4 else ""}')
        if self.equivalent_names:
            lines.append(f'  or, with the same tensors: {", ".join(self.equivalent_names)}')
        return '\n'.join(lines)


def identify(source: str | Path, limit: int = 3) -> list[Match]:
    """Find the network that a file is of.

    Args:
        source: As for :func:`read_state_dict`.
        limit: Number of near networks to return where none matches completely.

    Returns:
        The one network that the file is of; else the nearest ones, best first, none of them `complete`; or nothing.

    Raises:
        CheckpointError: The file cannot be read.
    """
    state, _ = read_state_dict(source)
    return match_state(state, limit)


def match_state(state: State, limit: int = 3) -> list[Match]:
    """As :func:`identify`, for tensors by key, of which only shapes are read."""
    shapes = {key: torch.empty_like(value, device='meta') for key, value in state.items()}
    with _without_logging():
        matches = [_compare(shapes, name) for name in _candidates(shapes)]
        if not any(match.complete for match in matches):
            near = [match.backbone for match in matches if match.match_ratio >= _MIN_MATCH_RATIO]
            matches += [_compare(shapes, name, fused=True) for name in near]
    matches.sort(key=_closeness, reverse=True)
    if matches and matches[0].complete:
        equivalent_names = tuple(match.backbone for match in matches[1:] if match.complete)
        return [replace(matches[0], equivalent_names=equivalent_names)]
    best = {match.backbone: match for match in reversed(matches) if match.match_ratio >= _MIN_MATCH_RATIO}
    return sorted(best.values(), key=_closeness, reverse=True)[:limit]


def convert(source: str | Path) -> tuple[State, Match]:
    """Tensors of a published file under the names of the network that it is of, head included.

    Raises:
        CheckpointError: The file cannot be read, or is of no registered network.
    """
    state, _ = read_state_dict(source)
    matches = match_state(state)
    if not matches or not matches[0].complete:
        near = ''.join(f'\nNear: {match}' for match in matches)
        raise CheckpointError(f'{source} is of no registered network, and was not converted.{near}')
    match = matches[0]
    network = _network(match.backbone, match.options, match.fused)
    state = _renamed(state, network)
    known = network.state_dict().keys()
    return {k: v for k, v in state.items() if k in known or k.startswith(network.backbone.dense_only_prefixes)}, match


def _candidates(state: State) -> list[str]:
    """Variants of the groups whose keys match the file's best, numbers aside, so that few networks are built."""
    names: dict[type | str, list[str]] = {}
    for name in list_backbones():
        names.setdefault(_group(name), []).append(name)
    shares = {group: _share_of_known_keys(state, variants[0]) for group, variants in names.items()}
    limit = max(_MIN_MATCH_RATIO, max(shares.values()) - 0.1)
    return [name for group, variants in names.items() if shares[group] >= limit for name in variants]


def _group(name: str) -> type | str:
    """What variants share whose keys are alike, numbers aside; one of them is compared for all."""
    # Networks of timm have one class here, and keys of their own: `timm_swin` of `timm_swin_t`.
    return '_'.join(name.split('_')[:2]) if name.startswith('timm_') else find_backbone(name)[0]


def _share_of_known_keys(state: State, name: str) -> float:
    network = _network(name, _implied_options(name, state), fused=False)
    known = {re.sub(r'\d+', '0', key) for key in network.state_dict()}
    keys = [re.sub(r'\d+', '0', key) for key in _without_ignored(_renamed(state, network), network)]
    return sum(key in known for key in keys) / max(1, len(keys))


def _closeness(match: Match) -> tuple[bool, float, float]:
    differing = len(match.missing) + len(match.unexpected) + len(match.reshaped)
    return match.complete, match.keys / (match.keys + differing + 1), match.match_ratio


def _compare(state: State, name: str, fused: bool = False) -> Match:
    """Match of tensors on the meta device."""
    options = _implied_options(name, state)
    network = _network(name, options, fused)
    own, trunk = network.state_dict(keep_vars=True), {*network.backbone.state_dict()}
    state = _without_ignored(_renamed(state, network), network)
    same = {key for key in state.keys() & own.keys() if _fits(state[key], own[key], key in trunk)}
    found = [own[key].numel() for key in trunk & same if isinstance(own[key], nn.Parameter)]
    return Match(
        backbone=name,
        family=type(network.backbone).__name__,
        options=options,
        fused=fused,
        keys=len(same),
        total_keys=len(state),
        parameters=sum(found),
        total_parameters=sum(p.numel() for p in network.backbone.parameters()),
        classes=_classes(state, {key: own[key] for key in own.keys() - trunk}, same),
        missing=tuple(sorted(key for key in trunk - state.keys() if not key.endswith(_COUNTER))),
        unexpected=tuple(sorted(state.keys() - own.keys())),
        reshaped=tuple(sorted((state.keys() & own.keys()) - same)),
    )


def _implied_options(name: str, state: State) -> dict[str, Any]:
    """Options that a file of any layout shows."""
    cls, _ = find_backbone(name)
    return cls.implied_options(with_authors_names(state, cls.checkpoint_layouts))


def _network(name: str, options: dict[str, Any], fused: bool) -> Classifier:
    """A variant on the meta device, as its authors' classifier."""
    return _build(name, tuple(options.items()), fused)


# Cached for those who identify many files: three megabytes each.
@functools.lru_cache(maxsize=256)
@torch.no_grad()
def _build(name: str, options: tuple[tuple[str, Any], ...], fused: bool) -> Classifier:
    cls, defaults = find_backbone(name)
    with meta_device():
        backbone = cls(**{**defaults, **cls.classifier_options, 'out_norm': False, **dict(options)}).eval()
        return Classifier(backbone.fuse() if fused else backbone, _CLASSES)


def _renamed(state: State, network: Classifier) -> State:
    with torch.device(next(iter(state.values())).device):
        return with_own_names(network, state)


def _without_ignored(state: State, network: Classifier) -> State:
    """`state` without what dense prediction adds, and what loading ignores apart from the head."""
    dense_only, ignores = network.backbone.dense_only_prefixes, '|'.join(network.backbone.checkpoint_ignores)
    heads = {name.split('.')[0] for name in network.head.state_dict()}
    ignored = {key for key in state if key.split('.')[0] not in heads and re.match(ignores, key)}
    return {key: value for key, value in state.items() if key not in ignored and not key.startswith(dense_only)}


def _fits(value: Tensor, own: Tensor, of_trunk: bool) -> bool:
    """Whether shapes are equal; a head may have any number of classes."""
    if value.shape == own.shape:
        return True
    return not of_trunk and own.shape[:1] == (_CLASSES,) and value.shape[1:] == own.shape[1:]


def _classes(state: State, head: State, same: set[str]) -> int | None:
    """Rows of the last layer, where the whole head is there."""
    if any(key not in same and not key.endswith(_COUNTER) for key in head):
        return None
    return next(state[key].shape[0] for key, own in head.items() if own.shape[:1] == (_CLASSES,))


@contextmanager
def _without_logging() -> Iterator[None]:
    """Conversions log what they do; here they are only tried."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
