"""The feature maps that a config's backbone returns, and which maps of another backbone replace them."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from ..backbones.pyramid import PyramidBackbone
from ..datasets.roots import walk

# Every stride up to 128 divides it.
SIDE = 256
PYRAMID = (4, 8, 16, 32)


@dataclass(frozen=True)
class Maps:
    """Channels and strides of feature maps, in the order in which a backbone returns them."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.strides)

    def targets(self) -> tuple[int, ...] | None:
        """Strides to look for in another backbone; None where these are no pyramid.

        Four maps of which some share a stride are the four stages of a dilated or plain network.
        """
        if list(self.strides) == sorted(set(self.strides)):
            return self.strides
        return PYRAMID if len(self) == 4 and list(self.strides) == sorted(self.strides) else None


def maps_of(backbone: dict[str, Any], scope: str) -> Maps:
    """Channels and strides of the maps of a backbone of mmdet, mmseg or ours, built without its weights.

    Raises:
        ValueError: It puts out something else than a sequence of feature maps.
        KeyError, ImportError: It cannot be built here.
    """
    config = {key: value for key, value in backbone.items() if key not in ('init_cfg', 'pretrained')}
    outputs = on_meta(lambda: _outputs(build(config, scope)))
    if isinstance(outputs, Maps):
        return outputs
    if not isinstance(outputs, (tuple, list)) or not all(isinstance(m, Tensor) and m.ndim == 4 for m in outputs):
        raise ValueError(f'{backbone["type"]} puts out something else than a sequence of feature maps')
    return Maps(tuple(m.shape[1] for m in outputs), tuple(round(SIDE / m.shape[3]) for m in outputs))


def _outputs(network: nn.Module) -> Any:
    if isinstance(network, PyramidBackbone):
        return Maps(network.out_channels, network.out_strides)
    network.eval()  # of which mmdet's networks return nothing
    return network(torch.zeros(1, 3, SIDE, SIDE))


def build(config: dict[str, Any], scope: str) -> nn.Module:
    """Build a model or a part of one to look at its shapes.

    Its config stays as it is: mmdet's models write into theirs. A teacher's weights are not fetched, and BatchNorm over
    processes, which there are none of, is plain.
    """
    config = copy.deepcopy(config)
    walk(config, _for_one_process)
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(config)


def _for_one_process(part: dict[str, Any]) -> None:
    part.pop('teacher_ckpt', None)
    if part.get('type') == 'MMSyncBN':
        part['type'] = 'BN'


def on_meta(function: Callable[[], Any]) -> Any:
    """`function()` without memory or arithmetic; for real where its tensors must have values."""
    with torch.no_grad():
        try:
            with torch.device('meta'):
                return function()
        except RuntimeError:
            return function()


def choose_stages(old: Maps, needed: Sequence[int], new: PyramidBackbone, exact: bool) -> dict[int, int]:
    """Which of the maps of `new` replaces each map of `old` that is needed: the one of equal stride.

    Args:
        old: What the config's backbone puts out.
        needed: Positions in `old`.
        new: A backbone that puts out all its maps.
        exact: Whether a stride that `new` lacks is an error, or the map of the same place stands in.

    Raises:
        ValueError: There is no such stage.
    """
    targets = old.targets()
    name = type(new).__name__
    if targets is None or (exact and targets != old.strides):
        raise ValueError(f'maps of strides {old.strides}, which are no pyramid; {name} has strides {new.out_strides}')
    stages = {}
    for position in needed:
        target = targets[position]
        if target in new.out_strides:
            stages[position] = new.out_strides.index(target)
        elif not exact and target in PYRAMID[: len(new.out_strides)]:
            stages[position] = PYRAMID.index(target)
        else:
            raise ValueError(f'a map of stride {target}; {name} with these options has strides {new.out_strides}')
    if sorted(set(stages.values())) != list(stages.values()):
        raise ValueError(f'maps of strides {targets}; {name} with these options has strides {new.out_strides}')
    return stages
