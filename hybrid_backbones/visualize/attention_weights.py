"""Weights that one query of an attention layer gives to the keys, from the layer's own input and parameters.

The networks never hold these: their kernels make outputs without them. They are computed here again for one query, and
equal what the layer used: weights times values is its output at that place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..backbones._attention_inputs import AttentionInputs, PlaceInWindow, Reader
from ..registry import VARIANTS
from .images import map_stride

Window = tuple[slice, slice]


@dataclass
class AttentionMap:
    """Attention of one query; all heads side by side.

    Attributes:
        layer: Name of the layer within the network.
        place: Row and column of the query on its map; None for the class token.
        prefix: (num_heads, P), weights of the prefix tokens.
        weights: (num_heads, H, W), weights of the map's keys, 0 outside the query's window. With `prefix` they
            sum to 1.
        values: (P + H * W, num_heads, d), what the weights are of.
        parts: Of gated positional attention, its two kinds of weights by name, each like `weights`.
        gate: (num_heads,), the share of the position's.
    """

    layer: str
    place: tuple[int, int] | None
    prefix: Tensor
    weights: Tensor
    values: Tensor
    parts: dict[str, Tensor]
    gate: Tensor | None


def attention_of(
    backbone: nn.Module, image: Tensor, block: int = -1, point: tuple[int, int] | None = None
) -> AttentionMap:
    """Run a network on an image and read one query of one of its attention layers.

    Args:
        backbone: Of a family with `attention_readers`; it is left as it is.
        image: (1, 3, H, W).
        block: Attention layer, counted from 0 in the order in which they run; negative from the last.
        point: Row and column of a pixel, whose place on the layer's map is the query. None for the class token where
            there is one in that layer, else the centre of the map.

    Raises:
        ValueError: A network without attention, `block` or `point` out of range.
    """
    height, width = image.shape[2:]
    if point is not None and not (0 <= point[0] < height and 0 <= point[1] < width):
        raise ValueError(f'point {tuple(point)} lies outside the image of {height} rows and {width} columns')
    layers = attention_layers(backbone)
    if block not in range(-len(layers), len(layers)):
        raise ValueError(
            f'block {block} of {type(backbone).__name__}, which has {len(layers)} attention layers here: expected 0 '
            f'to {len(layers) - 1}, or -1 for the last'
        )
    name, module = layers[block]
    read, found = _reader(backbone, module), []

    def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
        inputs = read(module, *args, **kwargs)
        found.append(_attend(name, inputs, _place(inputs, point, (height, width))))

    # Before the layer runs: in inference the blocks overwrite their inputs.
    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    training = backbone.training
    try:
        with torch.no_grad():
            backbone.eval()(image)
    finally:
        handle.remove()
        backbone.train(training)
    return found[0]


def attention_layers(backbone: nn.Module) -> list[tuple[str, nn.Module]]:
    """Names and modules of a network's attention layers, in the order in which they run.

    Raises:
        ValueError: There are none.
    """
    layers = [(name, module) for name, module in backbone.named_modules() if _reader(backbone, module)]
    if not layers:
        names: dict[str, list[str]] = {}
        for name, (cls, _) in sorted(VARIANTS.items()):
            if cls.attention_readers:
                names.setdefault(cls.__name__, []).append(name)
        listed = '; '.join(f'{family} ({", ".join(variants)})' for family, variants in sorted(names.items()))
        raise ValueError(
            f'{type(backbone).__name__} has no attention layer that can be drawn: those of timm cannot. Networks with '
            f'such layers: {listed}'
        )
    return layers


def _reader(backbone: nn.Module, module: nn.Module) -> Reader | None:
    readers = getattr(backbone, 'attention_readers', {})
    return next((readers[cls] for cls in type(module).__mro__ if cls in readers), None)


def _prefix_tokens(inputs: AttentionInputs) -> int:
    return len(inputs.q) - inputs.size[0] * inputs.size[1]


def _place(inputs: AttentionInputs, point: tuple[int, int] | None, size: tuple[int, int]) -> tuple[int, int] | None:
    """Row and column on the layer's map of a pixel of an image of `size`; None for the class token."""
    if point is None and _prefix_tokens(inputs):
        return None
    y, x = point or (size[0] // 2, size[1] // 2)
    stride = map_stride(size, inputs.size)
    return min(y // stride, inputs.size[0] - 1), min(x // stride, inputs.size[1] - 1)


def _attend(name: str, inputs: AttentionInputs, place: tuple[int, int] | None) -> AttentionMap:
    prefix, window = _prefix_tokens(inputs), _window(inputs, place)
    query = inputs.q[0 if place is None else prefix + place[0] * inputs.size[1] + place[1]]
    grid = inputs.k[prefix:].unflatten(0, inputs.key_size)[window].flatten(0, 1)
    scores = torch.einsum('hd,thd->ht', query, torch.cat([inputs.k[:prefix], grid]))
    if inputs.bias is not None:
        scores[:, prefix:] += inputs.bias(query, _in_window(place, window)).flatten(1)
    weights = scores.softmax(1)
    content = _over_map(weights[:, prefix:], inputs.key_size, window)
    if inputs.position is None:
        return AttentionMap(name, place, weights[:, :prefix], content, inputs.v, {}, None)
    position = _over_map(inputs.position(_in_window(place, window)).flatten(1), inputs.key_size, window)
    mixed = content.lerp(position, inputs.gate[:, None, None])
    parts = dict(content=content, position=position)
    return AttentionMap(name, place, weights[:, :prefix], mixed, inputs.v, parts, inputs.gate)


def _over_map(weights: Tensor, size: Sequence[int], window: Window) -> Tensor:
    """Weights of the window's keys (num_heads, h * w) to those of the map (num_heads, H, W)."""
    out = weights.new_zeros(len(weights), *size)
    seen = out[:, window[0], window[1]]
    seen.copy_(weights.view_as(seen))
    return out


def _window(inputs: AttentionInputs, place: tuple[int, int] | None) -> Window:
    """Rows and columns of the keys that the query at `place` attends to; a prefix token attends to all."""
    size, side = inputs.key_size, inputs.window_size
    if place is None or side is None or max(size) <= side:
        return slice(0, size[0]), slice(0, size[1])
    starts = [p - p % side for p in place]
    return tuple(slice(start, min(start + side, length)) for start, length in zip(starts, size, strict=True))


def _in_window(place: tuple[int, int], window: Window) -> PlaceInWindow:
    (y, x), (rows, columns) = place, window
    return PlaceInWindow(y - rows.start, x - columns.start, rows.stop - rows.start, columns.stop - columns.start)
