"""What layers of several families would cost as their papers write them, where what runs is other algebra."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


def attention_pairs(size: Sequence[int], window_size: int | None) -> int:
    """Pairs of tokens that attend to each other on a map of `size`, in windows that its edges cut."""
    side_of_window, pairs = window_size or max(size), 1
    for side in size:
        pairs *= side // side_of_window * side_of_window**2 + (side % side_of_window) ** 2
    return pairs


def parallel_kernels(module: nn.Module, _: tuple[Tensor], output: Tensor) -> int:
    """Parallel depthwise convolutions to (N, H, W, C), each on its own and with all taps. Ours: merged where one fits
    into another, without the taps that only meet padding, and by Fourier transform where that is less work.
    """
    n, height, width, _ = output.shape
    kernels = sum(conv.weight.numel() for conv in module.modules() if isinstance(conv, nn.Conv2d))
    return n * height * width * kernels


def inverted_bottleneck(module: nn.Module, inputs: tuple[Any, ...], output: Tensor, expand: str, shrink: str) -> int:
    """Every convolution once for every pixel. Ours: BatchNorms are folded into weights as they run, a product of matrix
    and vector; in row bands, what two bands share is computed twice; TensorFlow's padding by one output too many.

    Args:
        expand: Name of the convolution that runs before the stride.
        shrink: Name of the last convolution.
    """
    convs = {name: conv for name, conv in module.named_modules() if isinstance(conv, nn.Conv2d)}
    pixels_in = inputs[0].numel() // convs[expand].in_channels
    pixels_out = output.numel() // convs[shrink].out_channels
    pixels = {name: len(output) if name.startswith('se.') else pixels_out for name in convs} | {expand: pixels_in}
    return sum(pixels[name] * conv.weight.numel() for name, conv in convs.items())
