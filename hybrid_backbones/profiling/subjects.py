"""Networks by name, to be measured: ours, those of timm and transformers."""

import ast
from typing import Any

from torch import Tensor, nn

from ..backbones.factory import create_backbone, list_backbones
from .as_published import FAMILIES, as_published


class _HiddenStates(nn.Module):
    """Maps of a network of transformers, which returns them by name and on request."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.network(x, output_hidden_states=True).hidden_states


def parse(name: str) -> tuple[str, dict[str, Any]]:
    """`deit_s` and its options, of `deit_s:window_size=14,pyramid=None`.

    Raises:
        ValueError: An option without a value, or with one that is no Python literal.
    """
    name, *rest = name.split(':', 1)
    options = dict(part.partition('=')[::2] for part in ','.join(rest).split(',') if part)
    try:
        return name, {key: ast.literal_eval(value) for key, value in options.items()}
    except (SyntaxError, ValueError) as error:
        raise ValueError(f'options of {name}: expected NAME=VALUE,..., got {rest[0]!r}') from error


def _ours(name: str, fuse: bool) -> nn.Module:
    name, options = parse(name)
    network = create_backbone(name, **options)
    return network.fuse() if fuse else network


def create_network(name: str, fuse: bool = False, size: tuple[int, int] | None = None) -> nn.Module:
    """A backbone of ours, or timm's feature pyramid of that name (with or without `timm:` in front).

    Ours take options: `deit_s:window_size=14`. `plain:NAME` is ours laid out in full, as its authors compute it, for
    BoTNet and CeiT. `transformers:TYPE` is that library's network of a model type at its default configuration:
    `transformers:cvt` is CvT-13. Networks of timm that serve one size are built for `size`.

    Raises:
        ValueError: None of them has it.
    """
    if name.split(':')[0] in list_backbones():
        return _ours(name, fuse)
    library, _, rest = name.partition(':')
    if library == 'plain' and rest.split(':')[0] in [n for family in FAMILIES for n in list_backbones(f'{family}*')]:
        return as_published(_ours(rest, fuse=False))
    if library == 'transformers':
        from transformers import AutoConfig, AutoModel

        return _HiddenStates(AutoModel.from_config(AutoConfig.for_model(rest)))
    import timm

    plain = name.removeprefix('timm:')
    if plain not in timm.list_models():
        raise ValueError(f'{name!r} is neither one of {", ".join(list_backbones())} nor a model of timm')
    return _of_timm(plain, size)


def _of_timm(name: str, size: tuple[int, int] | None) -> nn.Module:
    import timm

    options = dict(features_only=True, pretrained=False)
    try:
        return timm.create_model(name, img_size=size, **options)
    except TypeError:  # of any size as it is
        return timm.create_model(name, **options)
