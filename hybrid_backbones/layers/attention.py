"""Attention over maps of any size without a matrix of all pairs in memory, and windows."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .crop import leading
from .packed_attention import attention_to
from .recompute import recomputed
from .sizes import ceil_div, to_multiple

# Scores that are in memory at a time while training: 64 MB in fp32.
_SCORES = 2**24
# Numbers of a bias that are in memory at a time: 32 MB in fp32, a CPU's third-level cache.
_CACHED = 2**23
# Pairs of positions, over images and heads, whose bias a GPU has in memory at a time: 512 MB in half precision.
_PAIRS = 2**28
# Queries at a time: from here on torch's CPU kernel works in blocks of 256.
_PART = 768


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """Softmax attention, (N, heads, T, C) and twice (N, heads, S, C) to (N, heads, T, C), without a matrix T x S."""
    parts, tokens = 1, q.shape[2]
    if q.is_cpu and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        parts = ceil_div(torch.get_num_threads(), q.shape[0] * q.shape[1])
    if parts == 1:
        return attention_to(k, v, q, scale, biased=False, once=True)(q, None)
    # A CPU's backward pass is parallel over heads only, and several times slower, not just serial, with a single one:
    # parts of the queries pass for heads.
    q = F.pad(q, (0, 0, 0, to_multiple(tokens, parts))).unflatten(2, (parts, -1)).flatten(1, 2)
    k, v = (t[:, :, None].expand(-1, -1, parts, -1, -1).flatten(1, 2) for t in (k, v))
    out = F.scaled_dot_product_attention(q, k, v, scale=scale)
    return out.unflatten(1, (-1, parts)).flatten(2, 3)[:, :, :tokens]


def window_partition(x: Tensor, window: int) -> Tensor:
    """Cut a map into windows, with zeros on the right and below where the last ones do not fit.

    Args:
        x: (N, H, W, C).
        window: Side of a window.

    Returns:
        (N * windows, window, window, C), row by row.
    """
    n, height, width, channels = x.shape
    rows, columns = ceil_div(height, window), ceil_div(width, window)
    x = F.pad(x, (0, 0, 0, columns * window - width, 0, rows * window - height))
    x = x.view(n, rows, window, columns, window, channels)
    return x.transpose(2, 3).reshape(-1, window, window, channels)


def window_unpartition(windows: Tensor, window: int, size: tuple[int, int]) -> Tensor:
    """Put the windows of :func:`window_partition` together again.

    Args:
        windows: (N * windows, window, window, C).
        window: Side of a window.
        size: (H, W) of the map.

    Returns:
        (N, H, W, C).
    """
    height, width = size
    rows, columns = ceil_div(height, window), ceil_div(width, window)
    x = windows.view(-1, rows, columns, window, window, windows.shape[-1]).transpose(2, 3)
    x = x.reshape(-1, rows * window, columns * window, windows.shape[-1])
    return leading(leading(x, 1, height), 2, width)


def window_padding(size: tuple[int, int], window: int, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where :func:`window_partition` pads.

    Args:
        size: (H, W) of the map.
        window: Side of a window.
        batch: N, images.

    Returns:
        Two masks (N * windows, 1, 1, window), true for rows and for columns of a window outside the map.
    """
    rows, columns = (
        (torch.arange(ceil_div(length, window) * window, device=device) >= length).view(-1, window) for length in size
    )
    shape = batch, rows.shape[0], columns.shape[0], window  # len() would fix it in a compiled graph
    return (
        rows[:, None].expand(shape).reshape(-1, 1, 1, window),
        columns[None].expand(shape).reshape(-1, 1, 1, window),
    )


def over_windows(function: Callable[[Tensor], Tensor], x: Tensor, window: int) -> Tensor:
    """What `function` makes of every window of a map; without padding: the last of a row or column are what remains.

    Args:
        function: (M, h, w, C) to (M, h, w, D), for a batch of windows of one size.
        x: (N, H, W, C).
        window: Side of a window.

    Returns:
        (N, H, W, D).
    """

    def cut(length: int) -> list[tuple[slice, int]]:
        whole = length - length % window
        parts = (slice(0, whole), window), (slice(whole, length), length - whole)
        return [(part, side) for part, side in parts if part.stop > part.start]

    def of_part(part: Tensor, height: int, width: int) -> Tensor:
        windows = part.unflatten(2, (-1, width)).unflatten(1, (-1, height)).transpose(2, 3)
        out = function(windows.flatten(0, 2)).unflatten(0, windows.shape[:3])
        return out.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    bands = [
        torch.cat([of_part(x[:, rows, columns], height, width) for columns, width in cut(x.shape[2])], 2)
        for rows, height in cut(x.shape[1])
    ]
    return torch.cat(bands, 1)


def relative_logits(q: Tensor, size: tuple[int, int], rel_height: Tensor, rel_width: Tensor) -> tuple[Tensor, Tensor]:
    """Relative position logits of attention over a map, a part per row and a part per column.

    Args:
        q: (N, heads, H * W, d), queries of a map row by row.
        size: (H, W).
        rel_height: (2H - 1, d), embeddings of the rows from H - 1 above the query to H - 1 below it.
        rel_width: (2W - 1, d), those of columns.

    Returns:
        (N, heads, H * W, H) and (N, heads, H * W, W): logits of every query for the keys of a row, of a column.
    """
    height, width = size
    q = q.unflatten(2, size)
    rows = torch.einsum('nhyxd,ykd->nhyxk', q, rel_height[_offsets(height, q.device)])
    columns = torch.einsum('nhyxd,xkd->nhyxk', q, rel_width[_offsets(width, q.device)])
    return rows.flatten(2, 3), columns.flatten(2, 3)


def _offsets(length: int, device: torch.device) -> Tensor:
    """Places in a table of 2 * length - 1 offsets: of key j seen from query i, at [i, j]."""
    places = torch.arange(length, device=device)
    return places - places[:, None] + length - 1


def decomposed_attention(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Softmax attention over a map, without scale, whose scores have a part per row and a part per column of the keys.

    `softmax(q k^T + rows[..., y] + columns[..., x]) v`, exactly, and never a matrix of all pairs.

    Args:
        q, k: (N, heads, H * W, d), of a map row by row.
        v: (N, heads, H * W, e).
        rows: (N, heads, H * W, H), see :func:`relative_logits`.
        columns: (N, heads, H * W, W).

    Returns:
        (N, heads, H * W, e).
    """
    parts = q, k, v, rows, columns
    differentiable = torch.is_grad_enabled() and any(part.requires_grad for part in parts)
    if torch.compiler.is_exporting():  # engines have no fused kernel to feed
        return _attend_plainly(q, k, v, (rows[..., None] + columns[..., None, :]).flatten(3), scale=1.0)
    if q.is_cpu and not differentiable and not torch.compiler.is_compiling():
        return _attend_by_query_chunks(*parts)
    return _attend_with_appended_logits(*parts)


def _attend_with_appended_logits(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The two parts as further elements of every query, which a key picks by the one-hot code of its place."""
    height, width = rows.shape[-1], columns.shape[-1]
    # Fused kernels take values of the queries' length only; the GPU's, multiples of 8.
    length = max(q.shape[-1] + height + width, v.shape[-1])
    # A compiler would make one graph for lengths that are multiples already and one for others.
    length += 8 - length % 8 if torch.compiler.is_compiling() else to_multiple(length, 8)
    places = torch.arange(height * width, device=q.device)
    # `F.one_hot` would be compiled for every size anew. No place has the last codes.
    codes = _equal(places // width, height), _equal(places % width, length - k.shape[-1] - height)
    k = torch.cat([k, torch.cat(codes, -1).to(k.dtype).expand(*k.shape[:2], -1, -1)], -1)
    q, dim = _lengthened([q, rows, columns], length), v.shape[-1]
    return F.scaled_dot_product_attention(q, k, _lengthened([v], length), scale=1.0)[..., :dim]


def _lengthened(parts: list[Tensor], length: int) -> Tensor:
    """The parts one after another, and zeros up to `length`.

    Compilers expect other strides of the gradient of `F.pad` than it has where sizes are symbols.
    """
    zeros = parts[0].new_zeros(*parts[0].shape[:-1], length - sum(part.shape[-1] for part in parts))
    return torch.cat([*parts, zeros], -1)


def _equal(numbers: Tensor, count: int) -> Tensor:
    """(T, count), where each of T numbers is 0, 1, ..."""
    return numbers[:, None] == torch.arange(count, device=numbers.device)


def _attend_by_query_chunks(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The sum of both parts as the bias of a few queries at a time: 0.55 of the time of longer vectors on a CPU."""
    n, heads, tokens, _ = q.shape
    # (N, H * W, heads, d) in memory, as the layers around want it.
    out = q.new_empty(n, tokens, heads, v.shape[-1]).transpose(1, 2)
    attend = attention_to(k, v, q, scale=1.0, biased=True, once=False)
    for start in range(0, tokens, _PART):
        part = slice(start, start + _PART)
        bias = (rows[:, :, part, :, None] + columns[:, :, part, None]).flatten(3)
        out[:, :, part] = attend(q[:, :, part], bias)
    return out


def table_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """Softmax attention between all positions of a map, with a learned bias by their offset.

    The bias of query (y, x) and key (s, t) is `table[:, y - s + H - 1, x - t + W - 1]`. No matrix of all pairs
    is laid out for larger maps, neither of scores nor of their bias, neither forward nor backward. On a GPU, the bias
    of a few heads is, and where one head's is too large, of a few rows of queries. Compiled, where one graph serves all
    sizes, the bias is laid out.

    Args:
        q: (N, heads, H, W, d).
        k: (N, heads, H, W, d).
        v: (N, heads, H, W, d).
        table: (heads, 2 * H - 1, 2 * W - 1), or larger, of which the middle is taken; in the dtype of `q`.

    Returns:
        (N, heads, H, W, d), laid out as (N, H, W, heads, d).
    """
    height, width = q.shape[2:4]
    top, left = table.shape[1] // 2 - (height - 1), table.shape[2] // 2 - (width - 1)
    table = table[:, top : top + 2 * height - 1, left : left + 2 * width - 1]
    # With the keys in reversed order, the bias of a query is a crop of the table.
    k, v = (t.flip(2, 3).flatten(2, 3) for t in (k, v))
    if torch.compiler.is_compiling():
        return _attend_at_once(q, k, v, table)
    attend = _attend_on_cpu if q.is_cpu else _attend_by_head_groups
    return attend(q, k, v, table)


def _attend_on_cpu(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        return _TableAttention.apply(q, k, v, table)
    return _table_attention(q, k, v, table)


def _bias(table: Tensor, height: int, width: int) -> Tensor:
    """Bias of all pairs, (heads, H, W, H, W) for queries and reversed keys, as a view of the table."""
    return table.unfold(1, height, 1).unfold(2, width, 1)


def _attend_at_once(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """The same with the bias of all pairs in memory, for compilers: one graph for any size."""
    height, width = q.shape[2:4]
    rows, columns = (torch.arange(side, device=q.device) for side in (height, width))
    rows, columns = rows[:, None] + rows, columns[:, None] + columns
    bias = table[:, rows[:, None, :, None], columns[None, :, None, :]].flatten(3).flatten(1, 2)
    out = _attend_plainly(q.flatten(2, 3), k, v, bias[None])
    return out.unflatten(2, (height, width))


def _attend_plainly(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float | None = None) -> Tensor:
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    # PyTorch's ONNX exporter writes it out in single operators, whose result has another layout than views expect.
    return out.contiguous() if torch.compiler.is_exporting() else out


def _attend_by_head_groups(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """The same with few and large operations, for GPUs: fused attention for as many heads as `_PAIRS` allows.

    The bias is laid out again in the backward pass. Fused kernels write its gradient in the dtype of `q`; it is summed
    in fp32.
    """
    n, heads, height, width, _ = q.shape
    pairs = n * width * height * width  # of a row of queries in one head
    rows = min(height, max(1, _PAIRS // pairs))
    at_a_time = min(heads, max(1, _PAIRS // (rows * pairs)))
    groups = zip(q.split(at_a_time, 1), *(t.split(at_a_time, 1) for t in (k, v)), table.split(at_a_time), strict=True)
    # Kernels lay their output out as (N, T, heads, d): nothing is copied where there is one group.
    out = [_attend_by_rows(*group, rows).permute(0, 2, 3, 1, 4) for group in groups]
    return (out[0] if len(out) == 1 else torch.cat(out, 3)).permute(0, 3, 1, 2, 4)


def _attend_by_rows(q: Tensor, k: Tensor, v: Tensor, table: Tensor, rows: int) -> Tensor:
    """(N, heads, H, W, d), whose bias is laid out for so many rows of queries at a time."""
    height, width = q.shape[2:4]
    out = []
    for start, band in zip(range(0, height, rows), q.split(rows, 2), strict=True):
        crop = table[:, start : start + band.shape[2] + height - 1]
        bias = _BiasOfPairs.apply(crop, height, width)
        with recomputed(bias, lambda crop=crop: _lay_out_bias(crop, height, width)):
            attended = F.scaled_dot_product_attention(band.flatten(2, 3), k, v, attn_mask=bias[None])
        out.append(attended.unflatten(2, (-1, width)))
    return out[0] if len(out) == 1 else torch.cat(out, 2)


def _lay_out_bias(table: Tensor, height: int, width: int) -> Tensor:
    """Bias of pairs, (heads, queries, H * W); in memory, queries are a multiple of 8 elements apart.

    Otherwise, attention would copy it (`preprocess_mask` in ATen/native/transformers/attention.cpp).
    """
    bias = _bias(table, height, width)
    tokens = height * width
    rows = bias.new_empty(len(bias), bias.shape[1] * width, tokens + to_multiple(tokens, 8))[..., :tokens]
    rows.unflatten(1, (-1, width)).unflatten(3, (height, width)).copy_(bias)
    return rows


class _BiasOfPairs(Function):
    """:func:`_lay_out_bias`, whose gradient is summed in fp32."""

    @staticmethod
    def forward(ctx, table, height, width):
        ctx.size = height, width
        return _lay_out_bias(table, height, width)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        grad_bias = grad.unflatten(2, ctx.size).unflatten(1, (-1, ctx.size[1]))
        grad_columns = _sum_by_offset(grad_bias.transpose(2, 3))
        return _sum_by_offset(grad_columns.permute(0, 3, 1, 2)).transpose(1, 2).to(grad.dtype), None, None


def _sum_by_offset(x: Tensor) -> Tensor:
    """(..., Q, K) to (..., Q + K - 1) in fp32, or the dtype of `x` if wider: the sum of those of equal q + k."""
    queries, keys = x.shape[-2:]
    offsets = queries + keys - 1
    # Rows of `offsets + 1` elements, viewed as rows of `offsets`, are each shifted by one to that before.
    shifted = F.pad(x, (0, queries)).flatten(-2)[..., : queries * offsets].unflatten(-1, (queries, offsets))
    return shifted.sum(-2, dtype=torch.promote_types(x.dtype, torch.float32))


def _table_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    n, heads, height, width, dim = q.shape
    # Few enough queries for their bias to stay in a CPU's cache, enough for its kernel to work in large blocks.
    rows = ceil_div(height, max(1, height * width // _PART))
    at_a_time = min(heads, max(1, _CACHED // (rows * width * height * width)))
    bias = _bias(table, height, width)
    of_part = q.new_empty(at_a_time, rows, width, height, width)
    out = q.new_empty(n, height, width, heads, dim)
    for first in range(0, heads, at_a_time):
        part = slice(first, first + at_a_time)
        queries = q[:, part]
        attend = attention_to(k[:, part], v[:, part], queries.flatten(2, 3), biased=True, once=False)
        for start in range(0, height, rows):
            lines = slice(start, start + rows)
            mask = of_part[: queries.shape[1], : min(rows, height - start)].copy_(bias[part, lines])
            attended = attend(queries[:, :, lines].flatten(2, 3), mask.flatten(3).flatten(1, 2)[None])
            out[:, lines, :, part] = attended.unflatten(2, (-1, width)).permute(0, 2, 3, 1, 4)
    return out.permute(0, 3, 1, 2, 4)


class _TableAttention(Function):
    """The same for training: scores are made again, a few rows at a time, in the backward pass."""

    @staticmethod
    def forward(ctx, q, k, v, table):
        ctx.save_for_backward(q, k, v, table)
        return _table_attention(q, k, v, table)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        dtype = grad.dtype
        # Scores of half precision would be off by more than their softmax forgives.
        wide = torch.promote_types(dtype, torch.float32)
        q, k, v, table = (t.to(wide) for t in ctx.saved_tensors)
        n, heads, height, width, dim = q.shape
        scale = dim**-0.5
        q, grad = (q * scale).flatten(2, 3), grad.to(wide).flatten(2, 3)
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        bias = _bias(table, height, width)
        # Of the table as the queries of every column of the map see it.
        grad_columns = table.new_zeros(heads, width, 2 * height - 1, width)
        rows = max(1, _SCORES // (n * heads * width * height * width))
        for start in range(0, height, rows):
            stop = min(start + rows, height)
            part = slice(start * width, stop * width)
            q_part, grad_part = q[:, :, part], grad[:, :, part]
            weights = q_part @ k.transpose(2, 3)
            weights.view(n, heads, -1, width, height, width).add_(bias[:, start:stop])
            weights = weights.softmax(-1)
            grad_v += weights.transpose(2, 3) @ grad_part
            grad_scores = torch._softmax_backward_data(grad_part @ v.transpose(2, 3), weights, -1, wide)
            grad_q[:, :, part] = (grad_scores @ k).mul_(scale)
            grad_k += grad_scores.transpose(2, 3) @ q_part
            grad_bias = grad_scores.sum(0).view(heads, -1, width, height, width)
            # Row by row, since the views of neighbouring rows overlap.
            for row in range(start, stop):
                grad_columns[:, :, row : row + height] += grad_bias[:, row - start]
        grad_table = torch.zeros_like(table)
        for column in range(width):
            grad_table[:, :, column : column + width] += grad_columns[:, column]
        grads = grad_q.unflatten(2, (height, width)), grad_k, grad_v, grad_table
        return tuple(g.to(dtype) for g in grads)
