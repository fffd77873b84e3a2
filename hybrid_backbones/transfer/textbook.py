"""What modules of ours would cost as their papers and authors write them, where what runs is other algebra."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..backbones import botnet, convit, replknet, slak


def _gated_positional_attention(
    module: convit.GatedPositionalAttention, inputs: tuple[Tensor, tuple[int, int]], _: Any
) -> int:
    """ConViT's equations 7 and 8, as the authors' `GPSA`: `pos_proj` of three numbers of every pair, and one product
    of the mixed weights of all pairs with the values; N^2 (2C + 3 heads). Ours: N^2 2C + N (H + W) C.
    """
    x, size = inputs
    n, tokens, dim = x.shape
    window = module.window_size or max(size)
    pairs = 1
    for side in size:  # windows are cut at the edges, not padded
        pairs *= side // window * window**2 + (side % window) ** 2
    return n * (3 * tokens * dim**2 + pairs * (2 * dim + 3 * module.heads))


def _relative_attention(module: botnet.Attention, inputs: tuple[Tensor], _: Any) -> int:
    """BoTNet's figure 4, as the gist: scores, values, and of every query the products with all 2H - 1 and 2W - 1
    relative embeddings, of which H and W are used; N^2 2C + N (2H + 2W - 2) C.
    Ours: N^2 2C + N (H + W) C on CPUs; longer vectors elsewhere, N^2 2 (C + heads (H + W)) and padding.
    """
    n, dim, height, width = inputs[0].shape
    qkv, window = 3 * height * width * dim**2, module.window_size
    if window is not None and window < max(height, width):
        n_windows = -(-height // window) * -(-width // window)
        height = width = window
    else:
        n_windows = 1
    tokens = height * width
    return n * (qkv + n_windows * tokens * dim * (2 * tokens + 2 * height + 2 * width - 2))


def _kernels(module: nn.Module, _: tuple[Tensor], output: Tensor) -> int:
    """RepLKNet's and SLaK's parallel depthwise convolutions, each on its own and with all taps. Ours: merged where one
    fits into another, without the taps that only meet padding, and by Fourier transform where that is less work.
    """
    n, height, width, _ = output.shape
    kernels = sum(conv.weight.numel() for conv in module.modules() if isinstance(conv, nn.Conv2d))
    return n * height * width * kernels


# class -> multiplications with addition of a forward pass: (module, its inputs, its output) -> number
TEXTBOOK: dict[type[nn.Module], Callable[..., int]] = {
    convit.GatedPositionalAttention: _gated_positional_attention,
    botnet.Attention: _relative_attention,
    replknet.LargeKernel: _kernels,
    slak.DecomposedKernel: _kernels,
}
