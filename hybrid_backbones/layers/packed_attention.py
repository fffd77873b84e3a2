"""Softmax attention by products with packed keys and values, on CPUs whose own attention is slower.

A head's scores are laid out for a few queries at a time, few enough to stay near the processor between both products.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .packed import can_pack, pack, packed_add_linear, packed_linear
from .product_choice import prefers

# Scores that are in memory at a time: 8 MB in fp32, within a third-level cache.
_SCORES = 2**21
# Queries at a time at least: with fewer, reading the keys takes longer than the products.
_FEWEST = 64
# Queries that a measurement has at most: enough for the large blocks of PyTorch's kernel.
_MEASURED = 1024

Attend = Callable[[Tensor, Tensor | None], Tensor]


def attention_to(k: Tensor, v: Tensor, q: Tensor, scale: float | None = None, *, biased: bool, once: bool) -> Attend:
    """Attention of queries to these keys and values, by the fastest kernel.

    Args:
        k: (N, heads, S, d).
        v: (N, heads, S, e).
        q: (N, heads, T, d), queries as there are in all; only their shape and whether they need gradients matter.
        scale: Of the scores; None for d ** -0.5.
        biased: Whether there will be a bias.
        once: Whether all queries will come in one call, so that no more than one head need be packed at a time.

    Returns:
        A function of queries (N, heads, t, d), and a bias (1 or N, heads, t, S) or None, that gives (N, heads, t, e).
    """
    if _may_pack(q, k, v) and prefers_packed_attention(q.shape[2], k.shape[2], q.shape[3], biased):
        return PackedAttention(k, v, scale, once)
    return partial(_attend_plainly, k, v, scale)


def prefers_packed_attention(queries: int, keys: int, dim: int, biased: bool) -> bool:
    """Whether packed products are faster for a head of attention in fp32 with `dim` channels."""
    kind = 'biased attention' if biased else 'attention'
    return prefers(kind, (min(queries, _MEASURED), keys, dim), torch.float32, _steps)


def _may_pack(*parts: Tensor) -> bool:
    # Scores in half precision would be rounded before their softmax, which PyTorch's kernels avoid.
    whole = all(t.dtype == torch.float32 and not (torch.is_grad_enabled() and t.requires_grad) for t in parts)
    return whole and not torch.is_autocast_enabled('cpu') and can_pack(parts[0])


def _attend_plainly(k: Tensor, v: Tensor, scale: float | None, q: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)


class PackedAttention:
    """Packed keys and values; called with queries as :func:`attention_to` says, which has the arguments too."""

    def __init__(self, k: Tensor, v: Tensor, scale: float | None = None, once: bool = False) -> None:
        heads = ((pack(keys), pack(values.t())) for keys, values in zip(k.flatten(0, 1), v.flatten(0, 1), strict=True))
        self.heads = heads if once else list(heads)
        self.features = v.shape[-1]
        self.scale = k.shape[-1] ** -0.5 if scale is None else scale
        self.queries = max(_FEWEST, _SCORES // k.shape[2] // 16 * 16)

    def __call__(self, q: Tensor, bias: Tensor | None = None) -> Tensor:
        n, heads, tokens, _ = q.shape
        # (N, T, heads, e) in memory, as the layers around want it.
        out = q.new_empty(n, tokens, heads, self.features).transpose(1, 2)
        for index, (keys, values) in enumerate(self.heads):
            image, head = divmod(index, heads)
            for start in range(0, tokens, self.queries):
                part = slice(start, start + self.queries)
                queries = q[image, head, part] * self.scale
                if bias is None:
                    scores = packed_linear(queries, keys, None)
                else:
                    scores = packed_add_linear(bias[image % len(bias), head, part], queries, keys, None)
                torch.softmax(scores, -1, out=scores)
                out[image, head, part] = packed_linear(scores, values, None)
        return out


def _steps(shape: tuple[int, int, int], dtype: torch.dtype, kind: str) -> tuple[Callable, Callable]:
    """The same attention by PyTorch and packed, to be measured."""
    queries, keys, dim = shape
    q, k = (torch.ones(1, 1, length, dim, dtype=dtype) for length in (queries, keys))
    bias = torch.ones(1, 1, queries, keys, dtype=dtype) if kind == 'biased attention' else None
    return lambda: _attend_plainly(k, k, None, q, bias), lambda: PackedAttention(k, k, once=True)(q, bias)
