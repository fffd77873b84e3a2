"""What modules of ours would cost as their papers and authors write them, where what runs is other algebra."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from ...backbones import botnet, ceit, coatnet, convit, moat, replknet, slak


def _pairs(size: Sequence[int], window: int | None) -> int:
    """Pairs of tokens that attend to each other on a map, in windows that its edges cut."""
    window, pairs = window or max(size), 1
    for side in size:
        pairs *= side // window * window**2 + (side % window) ** 2
    return pairs


def _gated_positional_attention(
    module: convit.GatedPositionalAttention, inputs: tuple[Tensor, tuple[int, int]], _: Any
) -> int:
    """ConViT's equations 7 and 8, as the authors' `GPSA`: `pos_proj` of three numbers of every pair, and one product
    of the mixed weights of all pairs with the values; N^2 (2C + 3 heads). Ours: N^2 2C + N (H + W) C.
    """
    x, size = inputs
    n, tokens, dim = x.shape
    pairs = _pairs(size, module.window_size)
    return n * (3 * tokens * dim**2 + pairs * (2 * dim + 3 * module.num_heads))


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


def _inverted_bottleneck(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, expand: str, last: str) -> int:
    """Every convolution once for every pixel. Ours: BatchNorms are folded into weights as they run, a product of matrix
    and vector; in row bands, what two bands share is computed twice; TensorFlow's padding by one output too many.
    """
    convs = {name: conv for name, conv in module.named_modules() if isinstance(conv, nn.Conv2d)}
    before, behind = inputs[0].numel() // convs[expand].in_channels, output.numel() // convs[last].out_channels
    pixels = {name: len(output) if name.startswith('se.') else behind for name in convs} | {expand: before}
    return sum(pixels[name] * conv.weight.numel() for name, conv in convs.items())


def _moat_block(module: moat.MOATBlock, inputs: tuple[Tensor], output: Tensor) -> int:
    """Four projections and attention behind the convolutions."""
    n, height, width, dim = output.shape
    pairs = _pairs((height, width), module.attention.window_size)
    convolutions = _inverted_bottleneck(module, inputs, output, 'expand_conv', 'shrink_conv')
    return convolutions + n * (4 * height * width * dim**2 + 2 * pairs * dim)


# class -> multiplications with addition of a forward pass: (module, its inputs, its output) -> number
TEXTBOOK: dict[type[nn.Module], Callable[..., int]] = {
    convit.GatedPositionalAttention: _gated_positional_attention,
    botnet.Attention: _relative_attention,
    replknet.LargeKernel: _kernels,
    slak.DecomposedKernel: _kernels,
    coatnet.MBConv: partial(_inverted_bottleneck, expand='conv1_1x1', last='conv3_1x1'),
    ceit.LeFF: partial(_inverted_bottleneck, expand='conv1', last='conv3'),
    moat.MBConv: partial(_inverted_bottleneck, expand='expand_conv', last='shrink_conv'),
    moat.MOATBlock: _moat_block,
}
