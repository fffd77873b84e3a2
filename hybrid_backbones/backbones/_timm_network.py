"""What is asked of timm about a network: its name and options, its layers in order, what its pruning keeps."""

import difflib
import inspect
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from .._meta import meta_device
from ..layers.drop_path import check_rate

# Arguments of timm's that are options of the class, or none of its business.
OWN = ('pretrained', 'checkpoint_path', 'num_classes', 'in_chans', 'drop_path_rate', 'features_only', 'out_indices')

# Licences of published weights by timm's identifiers: those of free software, and those that forbid commercial use.
FREE = ('apache-2.0', 'bsd-3-clause', 'mit')
NONCOMMERCIAL = ('apple-amlr', 'cc-by-nc-4.0', 'fair-noncommercial-research-license')


def parse_name(arch: str | dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """timm's name of the network, and what its constructor takes besides.

    Raises:
        ValueError: A network that timm does not have, or options that are not for timm.
    """
    import timm

    options = dict(model_name=arch) if isinstance(arch, str) else dict(arch)
    if 'model_name' not in options or options.keys() & set(OWN):
        raise ValueError(
            f"arch has the keys {sorted(options)}; expected model_name, and arguments of timm's constructor but "
            f'{", ".join(OWN)}'
        )
    name = options.pop('model_name')
    if not timm.is_model(name):
        alike = difflib.get_close_matches(name, timm.list_models(), 5, cutoff=0.0)
        raise ValueError(f'unknown arch {name!r}; choose one of timm.list_models(), such as {", ".join(alike)}')
    return name, options


def without_weights(name: str, options: dict[str, Any]) -> nn.Module:
    """The complete network on the meta device: names and shapes at next to no cost."""
    import timm

    with meta_device():
        return timm.create_model(name, **options)


def complete(network: nn.Module, name: str, options: dict[str, Any], drop_path_rate: float) -> dict[str, Any]:
    """`options` with those for any image size and for stochastic depth, under the names that the network gives them.

    Args:
        network: Built with `options`; names and shapes of its parameters are those of a network with all of them.
        name: timm's name of it.
        options: Of its constructor.
        drop_path_rate: Of its last block.

    Raises:
        ValueError: Stochastic depth that the network does not have.
    """

    check_rate(drop_path_rate)
    # Those that a class passes on to the one that it derives from, too.
    parameters = {name for cls in type(network).__mro__ for name in inspect.signature(cls.__init__).parameters}
    if 'drop_path_rate' in parameters:
        options = options | dict(drop_path_rate=drop_path_rate)
    elif drop_path_rate:
        raise ValueError(f'drop_path_rate={drop_path_rate}: {name} of timm has no stochastic depth; leave it at 0')
    if 'strict_img_size' in parameters:
        return dict(strict_img_size=False) | options
    return dict(dynamic_img_size=True) | options if 'dynamic_img_size' in parameters else options


def layers_of(network: nn.Module) -> dict[str, int]:
    """Layer of every parameter by timm's `group_matcher`, 0 for the stem; without one, a layer for every feature."""
    from timm.models import group_parameters

    ends = [info['module'] for info in network.feature_info]

    def stage(name: str) -> int:
        return next((i + 1 for i, end in enumerate(ends) if name.startswith(f'{end}.')), 0)

    matcher = network.group_matcher(coarse=False) if hasattr(network, 'group_matcher') else stage
    return group_parameters(network, matcher, reverse=True)


def last_layers(network: nn.Module, layers: dict[str, int], features: Sequence[int | None]) -> list[int]:
    """The last layer that each of the ascending `features` takes; 0 for None. What they do not take is cut off."""
    ends = []
    for feature in reversed(features):
        if feature is not None:
            network.prune_intermediate_layers([feature], prune_norm=True, prune_head=True)
        ends.append(0 if feature is None else max(layers[name] for name, _ in network.named_parameters()))
    return ends[::-1]


def file_rules(network: nn.Module, trunk: nn.Module) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """How keys of timm's files are renamed for `trunk`, and which it leaves out: head, final norm, unbuilt blocks."""
    own = trunk.state_dict()
    tops = '|'.join(sorted({re.escape(key.partition('.')[0]) for key in own}))
    unbuilt = '|'.join(map(re.escape, absent(network.state_dict(), own)))
    return ((rf'^(?!({unbuilt})(\.|$))(?=({tops})(\.|$))', 'trunk.'),), (rf'(trunk\.)?({unbuilt})(\.|$)',)


def convert_file(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """timm's own conversion of published files, and of tables that were learned at another size, for `network`."""
    convert = getattr(sys.modules[type(network).__module__], 'checkpoint_filter_fn', None)
    if convert is None or any(key.startswith('trunk.') for key in state):
        return state
    try:
        return convert(state, network)
    except (AttributeError, KeyError, RuntimeError):
        return state  # of another network; what is known here and what is not goes into the error


def image_statistics(network: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation, from 0 to 255, of the images that the published weights were trained on."""
    statistics = network.default_cfg['mean'], network.default_cfg['std']
    return tuple(tuple(round(255 * value, 3) for value in each) for each in statistics)


def log_licence(network: nn.Module) -> None:
    """Log the licence of the network's published weights, unless it is one of free software."""
    licence = network.pretrained_cfg.get('license', FREE[0])
    if licence not in FREE:
        terms = 'which forbids commercial use' if licence in NONCOMMERCIAL else 'which has terms of its own'
        name = '.'.join(filter(None, (network.pretrained_cfg['architecture'], network.pretrained_cfg.get('tag'))))
        print_log(f'The weights of {name} are published under {licence!r}, {terms}', 'current')


def without_decay(trunk: nn.Module) -> tuple[str, ...]:
    """Last parts of the names of parameters to which timm gives no weight decay."""
    names = trunk.no_weight_decay() if hasattr(trunk, 'no_weight_decay') else ()
    return tuple(sorted({name.rpartition('.')[2] for name in names}))


def beginnings(name: str) -> list[str]:
    """A dotted name and the names of all that it lies in, outermost first."""
    parts = name.split('.')
    return ['.'.join(parts[:n]) for n in range(1, len(parts) + 1)]


def absent(names: Iterable[str], present: Iterable[str]) -> list[str]:
    """The outermost modules, or parameters, of `names` in which nothing is `present`."""
    known = {beginning for name in present for beginning in beginnings(name)}
    found = {next((b for b in beginnings(name) if b not in known), None) for name in names}
    return sorted(found - {None})
