"""Files of EfficientNet-PyTorch for timm's networks: the same tensors under other names.

EfficientNet-PyTorch by Luke Melas-Kyriazi, https://github.com/lukemelas/EfficientNet-PyTorch, Apache-2.0, whose names
EfficientNet-Lite-PyTorch has too. Its weights come from TensorFlow, with `SAME` padding (more at the right and bottom
than at the left and top) and BatchNorm's epsilon of 1e-3. timm builds that as `tf_efficientnet_*`; its
`efficientnet_*` have the same tensors, but pad evenly. Weights put there would load, and classify two in five images
otherwise: so they are not renamed for them.
"""

import itertools

from torch import Tensor, nn

# Where every such file begins.
STEM = '_conv_stem.weight'
ADVICE = (
    "The file has the names of EfficientNet-PyTorch, whose padding is TensorFlow's. Take timm's network of that "
    "padding: timm_tf_efficientnet_lite0, or TimmPyramid(arch='tf_efficientnet_b0') and so on."
)

_AROUND = {'_conv_stem': 'conv_stem', '_bn0': 'bn1', '_conv_head': 'conv_head', '_bn1': 'bn2', '_fc': 'classifier'}
_SQUEEZE = {'_se_reduce': 'se.conv_reduce', '_se_expand': 'se.conv_expand'}
# Blocks of the first stage do not expand, and timm counts norms from 1 in either kind.
_SEPARABLE = {'_depthwise_conv': 'conv_dw', '_bn1': 'bn1', '_project_conv': 'conv_pw', '_bn2': 'bn2', **_SQUEEZE}
_INVERTED = {
    '_expand_conv': 'conv_pw',
    '_bn0': 'bn1',
    '_depthwise_conv': 'conv_dw',
    '_bn1': 'bn2',
    '_project_conv': 'conv_pwl',
    '_bn2': 'bn3',
    **_SQUEEZE,
}


def is_file_of_efficientnet_pytorch(state: dict[str, Tensor]) -> bool:
    """Whether the tensors have that package's names."""
    return STEM in state


def pads_as_tensorflow(network: nn.Module) -> bool:
    """Whether a network of timm is an EfficientNet with `SAME` padding."""
    from timm.layers import Conv2dSame

    return isinstance(getattr(network, 'conv_stem', None), Conv2dSame)


def named_as_timm(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """`state` under timm's names; keys that the network has no place for, such as of deeper networks, stay.

    Args:
        state: Of EfficientNet-PyTorch, which counts blocks through the whole network.
        network: timm's, complete, which counts them within its stages.
    """
    tables = {(): ('', _AROUND)}
    numbers = itertools.count()
    for i, stage in enumerate(network.blocks):
        for j, block in enumerate(stage):
            table = _INVERTED if hasattr(block, 'conv_pwl') else _SEPARABLE
            tables['_blocks', str(next(numbers))] = f'blocks.{i}.{j}.', table
    return {_renamed(key, tables): value for key, value in state.items()}


def _renamed(key: str, tables: dict[tuple[str, ...], tuple[str, dict[str, str]]]) -> str:
    *block, layer, name = key.split('.')
    prefix, table = tables.get(tuple(block), ('', {}))
    return f'{prefix}{table[layer]}.{name}' if layer in table else key
