"""Plain Transformers by their definition, with all pairs of tokens in one matrix."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def layer_norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.weight + layer.bias


def patches(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, h, w, D): a linear layer of every patch, zeros beyond the image."""
    side = layer.kernel_size[0]
    x = F.pad(x, (0, -x.shape[3] % side, 0, -x.shape[2] % side))
    cut = x.unfold(2, side, side).unfold(3, side, side).permute(0, 2, 3, 1, 4, 5).flatten(3)
    return cut @ layer.weight.flatten(1).t() + layer.bias


def positions(table: Tensor, special: int, size: tuple[int, int], align_corners: bool) -> Tensor:
    side = round((table.shape[1] - special) ** 0.5)
    grid = table[0, special:].t().reshape(1, -1, side, side)
    if size != (side, side):
        grid = F.interpolate(grid, size, mode='bicubic', align_corners=align_corners)
    return torch.cat([table[:, :special], grid.flatten(2).transpose(1, 2)], 1)


def seen(size: tuple[int, int], special: int, window: int | None) -> Tensor:
    """Which keys a query sees, (T, T): of its own window, prefix tokens, and all of them as a prefix token."""
    height, width = size
    place = torch.arange(height * width)
    row, column = place // width, place % width
    name = row if window is None else row // window * width + column // window
    name = torch.cat([torch.full((special,), -1), name * (window is not None)])
    return (name == name[:, None]) | (name == -1) | (name[:, None] == -1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """(N, heads, T, d) each, the scores scaled by d ** -0.5."""
    scores = (q @ k.transpose(2, 3)) / q.shape[-1] ** 0.5
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v


def attention(layer: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    n, tokens, dim = x.shape
    q, k, v = layer.qkv(x).reshape(n, tokens, 3, layer.num_heads, -1).permute(2, 0, 3, 1, 4)
    return layer.proj(attend(q, k, v, mask).transpose(1, 2).reshape(n, tokens, dim))


def mlp(block: nn.Module, x: Tensor) -> Tensor:
    hidden = block.mlp.fc1(x)
    return block.mlp.fc2(hidden * (1 + torch.erf(hidden / 2**0.5)) / 2)


def lively(network: nn.Module) -> nn.Module:
    """Weights and statistics under which every layer matters."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            nn.init.normal_(tensor, mean=tensor.ndim == 1 and name.endswith('weight'), std=0.3)
        if name.endswith('running_var'):
            tensor.abs_().add_(0.5)
    return network
