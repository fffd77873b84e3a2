"""What one query of an attention layer looks at: its weights, from the layer's own input and parameters.

The networks never hold these: their kernels make outputs without them. They are computed here again for one query, and
equal what the layer used: weights times values is its output at that place.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import botnet, ceit, coatnet, convit, cvt, moat, vit
from ..backbones.factory import find_backbone, list_backbones
from ..layers import transformer
from .images import map_stride

FAMILIES = (botnet.BoTNet, ceit.CeiT, coatnet.CoAtNet, convit.ConViT, cvt.CvT, moat.MOAT, vit.ViT)
Window = tuple[slice, slice]


@dataclass
class AttentionMap:
    """Attention of one query; all heads side by side.

    Attributes:
        layer: Name of the layer within the network.
        place: Row and column of the query on its map; None for the class token.
        special: (heads, S), weights of the special tokens.
        weights: (heads, H, W), weights of the map's keys, 0 outside the query's window; with `special` they sum to 1.
        values: (S + H * W, heads, d), what the weights are of.
        parts: Of gated positional attention, its two kinds of weights by name, each like `weights`.
        gate: (heads,), the share of the position's.
    """

    layer: str
    place: tuple[int, int] | None
    special: Tensor
    weights: Tensor
    values: Tensor
    parts: dict[str, Tensor]
    gate: Tensor | None


@dataclass
class _Layer:
    """What a layer computes with: query (heads, d), scaled; keys and values (S + H * W, heads, d), special ones first.

    `bias`, and `position` with its `gate`, are (heads, h, w), of the keys in the query's `window`.
    """

    place: tuple[int, int] | None
    query: Tensor
    keys: Tensor
    values: Tensor
    size: tuple[int, int]
    window: Window
    bias: Tensor | None = None
    position: Tensor | None = None
    gate: Tensor | None = None


@dataclass
class _Query:
    """The pixel (y, x) of an image of `size` that asks; None for the class token, or the centre where there is none."""

    point: tuple[int, int] | None
    size: tuple[int, int]

    def place(self, grid: Sequence[int], special: int) -> tuple[int, int] | None:
        """Row and column on the map of a layer with `special` tokens in front; None for the class token."""
        if self.point is None and special:
            return None
        y, x = self.point or (self.size[0] // 2, self.size[1] // 2)
        stride = map_stride(self.size, grid)
        return min(y // stride, grid[0] - 1), min(x // stride, grid[1] - 1)


def attention_of(
    backbone: nn.Module, image: Tensor, block: int = -1, point: tuple[int, int] | None = None
) -> AttentionMap:
    """Run a network on an image and read one query of one of its attention layers.

    Args:
        backbone: Of one of `FAMILIES`; it is left as it is.
        image: (1, 3, H, W).
        block: Attention layer, counted from 0 in the order in which they run; negative from the last.
        point: Row and column of a pixel, whose place on the layer's map asks. None for the class token where there is
            one in that layer, else the centre of the map.

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
    read, query, found = _reader(module), _Query(point, (height, width)), []
    # Before the layer runs: in inference the blocks overwrite their inputs.
    hook = module.register_forward_pre_hook(
        lambda module, args, kwargs: found.append(_attend(name, read(module, query, *args, **kwargs))),
        with_kwargs=True,
    )
    training = backbone.training
    try:
        with torch.no_grad():
            backbone.eval()(image)
    finally:
        hook.remove()
        backbone.train(training)
    return found[0]


def attention_layers(backbone: nn.Module) -> list[tuple[str, nn.Module]]:
    """Names and modules of a network's attention layers, in the order in which they run.

    Raises:
        ValueError: There are none.
    """
    layers = [(name, module) for name, module in backbone.named_modules() if _reader(module)]
    if not layers:
        having = {cls.__name__: [n for n in list_backbones() if find_backbone(n)[0] is cls] for cls in FAMILIES}
        listed = '; '.join(f'{family} ({", ".join(names)})' for family, names in having.items())
        raise ValueError(f'{type(backbone).__name__} has no attention layer here. Networks with attention: {listed}')
    return layers


def _attend(name: str, layer: _Layer) -> AttentionMap:
    special = len(layer.keys) - math.prod(layer.size)
    keys = torch.cat([layer.keys[:special], _within(layer.keys[special:], layer)])
    scores = torch.einsum('hd,thd->ht', layer.query, keys)
    if layer.bias is not None:
        scores[:, special:] += layer.bias.flatten(1)
    weights = scores.softmax(1)
    content = _over_map(weights[:, special:], layer)
    if layer.position is None:
        return AttentionMap(name, layer.place, weights[:, :special], content, layer.values, {}, None)
    position = _over_map(layer.position.flatten(1), layer)
    mixed = content.lerp(position, layer.gate[:, None, None])
    parts = dict(content=content, position=position)
    return AttentionMap(name, layer.place, weights[:, :special], mixed, layer.values, parts, layer.gate)


def _within(grid: Tensor, layer: _Layer) -> Tensor:
    """(H * W, heads, d) to those of the query's window."""
    return grid.unflatten(0, layer.size)[layer.window].flatten(0, 1)


def _over_map(weights: Tensor, layer: _Layer) -> Tensor:
    """Weights of the window's keys (heads, h * w) to those of the map (heads, H, W)."""
    out = weights.new_zeros(len(weights), *layer.size)
    seen = out[:, layer.window[0], layer.window[1]]
    seen.copy_(weights.view_as(seen))
    return out


def _window(place: tuple[int, int] | None, size: Sequence[int], window: int | None) -> Window:
    """Rows and columns that the query at `place` sees; a special token sees all."""
    if place is None or window is None or max(size) <= window:
        return slice(0, size[0]), slice(0, size[1])
    starts = [p - p % window for p in place]
    return tuple(slice(start, min(start + window, side)) for start, side in zip(starts, size, strict=True))


def _inside(place: tuple[int, int], window: Window) -> tuple[int, int, int, int]:
    """Row and column of the query within its window, and the window's height and width."""
    (y, x), (rows, columns) = place, window
    return y - rows.start, x - columns.start, rows.stop - rows.start, columns.stop - columns.start


# One reader per kind of layer: its module and what that is called with, to what it computes.


def _read_tokens(attn: transformer.Attention, query: _Query, x: Tensor, size: tuple[int, int]) -> _Layer:
    q, k, v = attn.qkv(x)[0].unflatten(1, (3, attn.num_heads, -1)).unbind(1)
    special = len(q) - math.prod(size)
    place = query.place(size, special)
    index = 0 if place is None else special + place[0] * size[1] + place[1]
    return _Layer(place, q[index] * q.shape[-1] ** -0.5, k, v, tuple(size), _window(place, size, attn.window_size))


def _read_gated(attn: convit.GatedPositionalAttention, query: _Query, x: Tensor, size: tuple[int, int]) -> _Layer:
    qkv = torch.cat([attn.qk(x[0]), attn.v(x[0])], 1)
    q, k, v = qkv.unflatten(1, (3, attn.num_heads, -1)).unbind(1)
    place = query.place(size, 0)
    window = _window(place, size, attn.window_size)
    row, column, height, width = _inside(place, window)
    rows, columns = attn._weights(height, width)
    position = (rows[:, row, :, None] * columns[:, column, None]).to(q.dtype)
    gate = attn.gating_param.sigmoid().to(q.dtype)
    asking = q[place[0] * size[1] + place[1]] * q.shape[-1] ** -0.5
    return _Layer(place, asking, k, v, tuple(size), window, position=position, gate=gate)


def _read_cvt(attn: cvt.Attention, query: _Query, x: Tensor, size: tuple[int, int]) -> _Layer:
    special = x.shape[1] - math.prod(size)
    grid = x[:, special:].unflatten(1, size).contiguous()
    maps = [conv(grid)[0] for conv in (attn.conv_proj_q, attn.conv_proj_k, attn.conv_proj_v)]
    q, k, v = (
        linear(torch.cat([x[0, :special], m.flatten(0, 1)])).unflatten(1, (attn.num_heads, -1))
        for linear, m in zip((attn.proj_q, attn.proj_k, attn.proj_v), maps, strict=True)
    )
    place = query.place(size, special)
    index = 0 if place is None else special + place[0] * size[1] + place[1]
    key_size = tuple(maps[1].shape[:2])
    return _Layer(place, q[index] * attn.scale, k, v, key_size, _window(None, key_size, None))


def _read_coatnet(attn: coatnet.Attention, query: _Query, x: Tensor) -> _Layer:
    qkv = F.linear(x[0], attn.qkv.weight.flatten(1), attn.qkv.bias).unflatten(2, (attn.num_heads, -1))
    return _of_table(attn.window_size, attn.rel_pos, query, *qkv.chunk(3, -1))


def _read_moat(attn: moat.Attention, query: _Query, x: Tensor) -> _Layer:
    heads = (layer(x[0]).unflatten(2, (attn.num_heads, -1)) for layer in (attn.q, attn.k, attn.v))
    return _of_table(attn.window_size, attn._table, query, *heads)


def _of_table(window_size: int | None, table_of: Callable, query: _Query, q: Tensor, k: Tensor, v: Tensor) -> _Layer:
    """Attention with a bias by offset, see :func:`hybrid_backbones.layers.attention.table_attention`."""
    size = tuple(q.shape[:2])
    place = query.place(size, 0)
    window = _window(place, size, window_size)
    whole = window_size is None or max(size) <= window_size
    table, bias = table_of(*(size if whole else (window_size, window_size))), None
    if table is not None:
        y, x, height, width = _inside(place, window)
        rows = table.shape[1] // 2 + y - torch.arange(height, device=table.device)
        columns = table.shape[2] // 2 + x - torch.arange(width, device=table.device)
        bias = table[:, rows[:, None], columns].to(q.dtype)
    asking = q[place] * q.shape[-1] ** -0.5
    return _Layer(place, asking, k.flatten(0, 1), v.flatten(0, 1), size, window, bias)


def _read_botnet(attn: botnet.Attention, query: _Query, x: Tensor) -> _Layer:
    q, k, v = attn.qkv(x)[0].permute(1, 2, 0).unflatten(2, (3, attn.num_heads, -1)).unbind(2)
    size = tuple(q.shape[:2])
    place = query.place(size, 0)
    window = _window(place, size, attn.window_size)
    # Windows that reach beyond the map have the tables of whole ones.
    whole = attn.window_size is None or attn.window_size >= max(size)
    sides = size if whole else (attn.window_size, attn.window_size)
    asking = q[place] * attn.scale
    parts = []
    for table, side, at, length in zip(
        attn._tables(sides), sides, _inside(place, window)[:2], _inside(place, window)[2:], strict=True
    ):
        offsets = torch.arange(length, device=table.device) - at + side - 1
        parts.append(asking @ table[offsets].t())
    bias = parts[0][:, :, None] + parts[1][:, None]
    return _Layer(place, asking, k.flatten(0, 1), v.flatten(0, 1), size, window, bias)


_READERS = {
    transformer.Attention: _read_tokens,
    convit.GatedPositionalAttention: _read_gated,
    cvt.Attention: _read_cvt,
    coatnet.Attention: _read_coatnet,
    moat.Attention: _read_moat,
    botnet.Attention: _read_botnet,
}


def _reader(module: nn.Module) -> Callable[..., _Layer] | None:
    return next((_READERS[cls] for cls in type(module).__mro__ if cls in _READERS), None)
