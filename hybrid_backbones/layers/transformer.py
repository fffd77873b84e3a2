"""Transformer blocks on tokens (N, T, C): prefix tokens, such as a class token, then those of a map, row by row."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import attention, over_windows
from .drop_path import DropPath
from .inference import may_read
from .linear import product, project, weights_of

EPS = 1e-6


class Attention(nn.Module):
    """Multi-head attention.

    Args:
        dim: C.
        num_heads: Heads of C / num_heads channels.
        qkv_bias: Of queries, keys and values.
        window_size: None, or the side of the windows of the map that its tokens attend within. Prefix tokens attend to
            all tokens, and all attend to them, so that one window as large as the map changes nothing.
    """

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True, window_size: int | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, T, C) in and out, the last H * W tokens those of a map of `size`."""
        qkv = project(self.qkv, x)
        if self.window_size is None or max(size) <= self.window_size:
            return project(self.proj, self._attend(qkv, qkv))
        num_prefix = x.shape[1] - size[0] * size[1]
        prefix, grid = qkv[:, :num_prefix], qkv[:, num_prefix:].unflatten(1, size)
        out = over_windows(lambda part: self._attend_within(part, prefix), grid, self.window_size).flatten(1, 2)
        return project(self.proj, torch.cat([self._attend(prefix, qkv), out], 1) if num_prefix else out)

    def _attend_within(self, part: Tensor, prefix: Tensor) -> Tensor:
        """(M, h, w, 3C), windows of a map, to (M, h, w, C)."""
        windows = part.flatten(1, 2)
        keys = torch.cat([prefix.repeat_interleave(part.shape[0] // prefix.shape[0], 0), windows], 1)
        return self._attend(windows, keys).unflatten(1, part.shape[1:3])

    def _attend(self, of_queries: Tensor, of_keys: Tensor) -> Tensor:
        """(N, T, 3C) and (N, S, 3C), queries, keys and values side by side, to (N, T, C)."""
        q = of_queries.unflatten(2, (3, self.num_heads, -1))[:, :, 0].transpose(1, 2)
        k, v = of_keys.unflatten(2, (3, self.num_heads, -1))[:, :, 1:].permute(2, 0, 3, 1, 4)
        return attention(q, k, v).transpose(1, 2).flatten(2)


class MLP(nn.Module):
    """Feed-forward layer with GELU."""

    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, ratio * dim)
        self.fc2 = nn.Linear(ratio * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        hidden = product(x, weights_of(self.fc1), 'gelu') if may_read(self.fc1) else F.gelu(self.fc1(x))
        return project(self.fc2, hidden)


class Block(nn.Module):
    """Attention and MLP, each with a pre-norm, on (N, T, C).

    Args:
        attn: Attention on C channels, called like :class:`Attention`.
    """

    def __init__(self, dim: int, attn: nn.Module, mlp_ratio: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = MLP(dim, mlp_ratio)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        return x + self.drop_path(self.mlp(self.norm2(x)))
