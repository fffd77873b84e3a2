"""Transformer blocks on tokens (N, T, C): special ones such as a class token, then a map's row by row."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import attention, over_windows
from .drop_path import DropPath
from .linear import add_linear, gelu

EPS = 1e-6


class Attention(nn.Module):
    """Multi-head attention up to its last layer, `proj`, which is to mix what the heads give.

    Args:
        dim: C.
        heads: Heads of C / heads channels.
        qkv_bias: Of queries, keys and values.
        window_size: None, or the side of the windows of the map that its tokens attend within. Special tokens are
            seen from every window and see all of them, so that one window as large as the map changes nothing.
    """

    def __init__(self, dim: int, heads: int, qkv_bias: bool = True, window_size: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.window_size = window_size
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, T, C) in and out, the last H * W tokens those of a map of `size`."""
        qkv = self.qkv(x)
        if self.window_size is None or max(size) <= self.window_size:
            return self._attend(qkv, qkv)
        special = x.shape[1] - size[0] * size[1]
        front, grid = qkv[:, :special], qkv[:, special:].unflatten(1, size)
        out = over_windows(lambda part: self._of_windows(part, front), grid, self.window_size).flatten(1, 2)
        return torch.cat([self._attend(front, qkv), out], 1) if special else out

    def _of_windows(self, part: Tensor, front: Tensor) -> Tensor:
        """(M, h, w, 3C), windows of a map, to (M, h, w, C)."""
        windows = part.flatten(1, 2)
        seen = torch.cat([front.repeat_interleave(len(part) // len(front), 0), windows], 1)
        return self._attend(windows, seen).unflatten(1, part.shape[1:3])

    def _attend(self, of_queries: Tensor, of_keys: Tensor) -> Tensor:
        """(N, T, 3C) and (N, S, 3C), queries, keys and values side by side, to (N, T, C)."""
        q = of_queries.unflatten(2, (3, self.heads, -1))[:, :, 0].transpose(1, 2)
        k, v = of_keys.unflatten(2, (3, self.heads, -1))[:, :, 1:].permute(2, 0, 3, 1, 4)
        return attention(q, k, v).transpose(1, 2).flatten(2)


class MLP(nn.Module):
    """Feed-forward layer up to its last layer, `fc2`."""

    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, ratio * dim)
        self.fc2 = nn.Linear(ratio * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return gelu(self.fc1(x))


class Block(nn.Module):
    """Attention and MLP, each with a pre-norm, on (N, T, C). In inference `x` is overwritten.

    Args:
        attn: Attention on C channels with a last layer `proj`, see :class:`Attention`.
    """

    def __init__(self, dim: int, attn: nn.Module, mlp_ratio: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = MLP(dim, mlp_ratio)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = add_branch(x, self.attn(self.norm1(x), size), self.attn.proj, self.drop_path)
        return add_branch(x, self.mlp(self.norm2(x)), self.mlp.fc2, self.drop_path)


def add_branch(x: Tensor, y: Tensor, last: nn.Linear, drop_path: DropPath) -> Tensor:
    """`x + drop_path(last(y))`; without gradients in place, summed by the matrix product."""
    if torch.is_grad_enabled() or drop_path.training:
        return x + drop_path(F.linear(y, last.weight, last.bias))
    add_linear(x, y, last.weight, last.bias)
    return x
