"""Weights of a whole model from a file: the part of it that is the model's, or an error that says what would match.

MMEngine loads what matches by name and shape, and warns of the rest: a file of other names gives a run from random
weights.
"""

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from ..backbones.pyramid import PyramidBackbone
from ..checkpoints.errors import CheckpointError, WrongModelError
from ..checkpoints.loading import with_own_names
from ..checkpoints.matching import ENOUGH, Part, entries, find_parts, nonfinite_keys, without_wrappers
from .model_checks import check_state_dict, differences, unwrap

# Of the parts or keys that a message lists.
_LISTED = 4


def choose_part(
    checkpoint: dict, model: nn.Module, source: str, name: str | None = None, unused: tuple[str, ...] = ()
) -> Part:
    """The part of a file that is the weights of a model.

    Args:
        checkpoint: What the file holds.
        model: The model to be loaded into.
        source: The file's name, for messages.
        name: Of the part to take, whatever of the model it matches; None for the one that MMEngine would load where it
            fits, else the only one that does.
        unused: Prefixes of entries that the model does without.

    Raises:
        CheckpointError: There is no such part, no part fits or several do, or it holds NaN or infinity.
    """
    if not isinstance(checkpoint, dict):
        raise WrongModelError(
            f'{source} holds a {type(checkpoint).__name__}, expected a dict of tensors by name: save model.state_dict()'
        )
    parts = find_parts(checkpoint, model.state_dict(), unused)
    if name:
        part = _named(parts, name, source)
    else:
        fitting = _distinct([part for part in parts if part.fits])
        usual = [part for part in fitting if _is_usual(part, checkpoint)]
        if not usual and len(fitting) != 1:
            raise WrongModelError(_refusal(checkpoint, model, source, fitting or parts))
        part = (usual or fitting)[0]
    _check_finite(part, model, source)
    if not _is_usual(part, checkpoint):
        print_log(f'{source}: loading {part}', 'current')
    return part


@HOOKS.register_module()
class LoadMatchingHook(Hook):
    """Load the part of `load_from` that is the model's weights, or refuse the file.

    What MMEngine would load is taken where nine tenths of the file's tensors and of the model's match. Else the only
    part that does is: weights nested under another entry, averaged ones, those under a wrapper's prefix. Where there
    are several, as of a teacher and a student, or where less of the model is to be loaded, the config's `load_part`
    chooses one by the name that the error gives.
    """

    # Before hooks that rewrite the checkpoint's weights, such as EMA's.
    priority = 'VERY_HIGH'
    # Prefixes of entries that the model does without.
    unused: tuple[str, ...] = ()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        model, source = unwrap(runner.model), str(runner._load_from)
        part = choose_part(checkpoint, model, source, runner.cfg.get('load_part'), self.unused)
        self._check(model, part, source)
        others = {key: value for key, value in checkpoint.items() if not isinstance(value, Tensor)}
        checkpoint.clear()
        checkpoint.update(others, state_dict=part.state)

    def _check(self, model: nn.Module, part: Part, source: str) -> None:
        """Require more of the part than that it fits."""


@HOOKS.register_module()
class StrictCheckpointHook(LoadMatchingHook):
    """Refuse a checkpoint that lacks any of the model's weights, or has others.

    Args:
        unused: Prefixes of the checkpoint's entries that this model does without.
    """

    def __init__(self, unused: tuple[str, ...] = ()) -> None:
        self.unused = tuple(unused)

    def _check(self, model: nn.Module, part: Part, source: str) -> None:
        check_state_dict(model, part.state, source)


def _usual_name(checkpoint: dict) -> str:
    """Name of the part that MMEngine itself would load."""
    return 'state_dict' if 'state_dict' in checkpoint else '.'


def _is_usual(part: Part, checkpoint: dict) -> bool:
    return part.name == _usual_name(checkpoint) and not part.target


def _distinct(parts: list[Part]) -> list[Part]:
    """`parts` without those of the same tensors: `model.linear` is all of `model` where that has nothing else."""
    distinct: dict[frozenset, Part] = {}
    for part in parts:
        distinct.setdefault(frozenset((key, id(value)) for key, value in part.state.items()), part)
    return list(distinct.values())


def _named(parts: list[Part], name: str, source: str) -> Part:
    for part in parts:
        if part.name == name:
            return part
    names = ', '.join(part.name for part in parts) or 'none'
    raise CheckpointError(f'load_part={name!r}: no such part of {source} matches the model; those that do: {names}')


def _check_finite(part: Part, model: nn.Module, source: str) -> None:
    keys = nonfinite_keys({key: part.state[key] for key in model.state_dict() if key in part.state})
    if keys:
        more = f' and {len(keys) - _LISTED} more' if len(keys) > _LISTED else ''
        raise CheckpointError(
            f'{source} has NaN or infinity in {", ".join(keys[:_LISTED])}{more}: the run that wrote it had diverged. '
            'Take an earlier checkpoint'
        )


def _refusal(checkpoint: dict, model: nn.Module, source: str, parts: list[Part]) -> str:
    """What differs, which parts of the file match, and how to load them."""
    state = dict(entries(checkpoint)).get(_usual_name(checkpoint).replace('.', ''), {})
    if state:
        lines = [differences(model, {without_wrappers(key): value for key, value in state.items()}, source)]
    else:
        lines = [
            f'{source} has no tensors by name where MMEngine looks for them, but: {", ".join(map(str, checkpoint))}'
        ]
    if parts:
        lines.append('Parts of the file that match, each with the option that loads it:')
        lines += [f'  {part} (--cfg-options load_part={part.name})' for part in parts[:_LISTED]]
    if _has_trunk(model, state, parts):
        lines.append(
            'To start from weights of the backbone alone: --cfg-options load_from=None '
            f'model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint={source}'
        )
    elif not parts:
        lines.append('No part of it matches. Give the config that it was trained with, or no load_from')
    return '\n'.join(lines)


def _has_trunk(model: nn.Module, state: dict[str, Tensor], parts: list[Part]) -> bool:
    """Whether the model's backbone, which is one of ours, can start from these weights."""
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, PyramidBackbone):
        return False
    if any(part.target == 'backbone.' and part.matched >= ENOUGH * part.given for part in parts):
        return True
    return bool(state) and any(
        part.fits for part in find_parts(with_own_names(backbone, dict(state)), backbone.state_dict())
    )
