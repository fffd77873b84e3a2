"""Depthwise convolutions with kernels as large as maps, by Fourier transform where that is less work.

On a CPU, `F.conv2d` needs a product per pixel and tap, and its backward pass thirty times as long per product as its
forward pass. A transform costs n * log2(n) whatever the kernel. `tools/benchmark_large_kernel.py` compares.
"""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .depthwise import depthwise
from .inference import known_layer

# Products of a direct convolution in the time of a transform (there, back, and the kernel's) of n numbers, divided by
# n * log2(n): measured with AVX-512 in inference, and with the backward pass.
_PRODUCTS_PER_STEP, _PRODUCTS_PER_STEP_TRAINED = 20, 3
# Channels at a time: their maps and spectra stay in a CPU's second-level cache, and a cache line holds as many floats.
_CHANNELS = 16
_CACHE_BYTES = 2**19


@known_layer
class LargeDepthwise(nn.Conv2d):
    """Same-size depthwise convolution with odd sides, by Fourier transform where that is less work; (N, C, H, W).

    Adapters build layers of the same class with other groups: those are plain convolutions.
    """

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self.in_channels == self.out_channels == self.groups:
            return super()._conv_forward(x, weight, bias)
        return large_depthwise(x.permute(0, 2, 3, 1), [weight], bias).permute(0, 3, 1, 2)


def large_depthwise(x: Tensor, weights: Sequence[Tensor], bias: Tensor | None = None) -> Tensor:
    """Sum of same-size depthwise convolutions of one map, differentiable once.

    Args:
        x: (N, H, W, C).
        weights: Kernels (C, 1, kh, kw) with odd sides, of any number and form.
        bias: (C,).

    Returns:
        (N, H, W, C), contiguous, in the dtype of `x`.
    """
    # Compiled or traced for any size of the map, kernels keep theirs.
    if not _is_followed():
        weights = [_trim(weight, *x.shape[1:3]) for weight in weights]
    weights = join_kernels(weights)
    if _fourier_pays(x, weights):
        return _Fourier.apply(x, merge_kernels(weights)[:, 0], bias)
    out = _direct(x, weights[0], bias)
    for weight in weights[1:]:
        out = out + _direct(x, weight, None)
    return out


def merge_kernels(weights: Sequence[Tensor]) -> Tensor:
    """The one kernel (C, 1, kh, kw) that gives the sum of the convolutions with each of `weights`."""
    height, width = _cover(weights)
    return sum(_pad_to(weight, height, width) for weight in weights)


def join_kernels(weights: Sequence[Tensor]) -> list[Tensor]:
    """The same sum in fewer kernels: one that fits into another is added to it."""
    joined: list[Tensor] = []
    for weight in sorted(weights, key=lambda w: w[0].numel(), reverse=True):
        height, width = weight.shape[2:]
        for i, host in enumerate(joined):
            if host.shape[2] >= height and host.shape[3] >= width:
                joined[i] = host + _pad_to(weight, *host.shape[2:])
                break
        else:
            joined.append(weight)
    return joined


def _trim(weight: Tensor, height: int, width: int) -> Tensor:
    """The taps that meet a pixel of a map of that size, when centred on another one."""
    rows, columns = (max(0, k // 2 - side + 1) for k, side in zip(weight.shape[2:], (height, width), strict=True))
    if not rows and not columns:
        return weight
    return weight[:, :, rows : weight.shape[2] - rows, columns : weight.shape[3] - columns]


def _cover(weights: Sequence[Tensor]) -> tuple[int, int]:
    return max(w.shape[2] for w in weights), max(w.shape[3] for w in weights)


def _pad_to(weight: Tensor, height: int, width: int) -> Tensor:
    """Zeros around a kernel, its centre kept in the centre."""
    rows, columns = (height - weight.shape[2]) // 2, (width - weight.shape[3]) // 2
    return F.pad(weight, (columns, columns, rows, rows))


def _direct(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    height, width = weight.shape[2:]
    # The rows under a large kernel outgrow the cache: for 25x42 pixels, 1024 channels and a kernel of 13, parts take a
    # quarter of the time.
    under = min(height, x.shape[1]) * x[0, 0].numel() * x.element_size()
    grad = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias))
    apart = x.is_cpu and not _is_followed() and height * width >= 81 and under > _CACHE_BYTES
    padding = [height // 2, width // 2]
    if grad or not apart:
        return depthwise(x, weight, bias, padding=padding)
    out = torch.empty_like(x)
    for part in _parts(x.shape[-1]):
        of_part = None if bias is None else bias[part]
        out[..., part] = depthwise(x[..., part].contiguous(), weight[part], of_part, padding=padding)
    return out


def _parts(channels: int) -> Iterator[slice]:
    return (slice(start, start + _CHANNELS) for start in range(0, channels, _CHANNELS))


def _is_followed() -> bool:
    """Whether a compiler, exporter or tracer follows, which fixes what is chosen by size."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _fourier_pays(x: Tensor, weights: Sequence[Tensor]) -> bool:
    # Elsewhere there are better kernels, and traced code is to serve any device.
    if not x.is_cpu or _is_followed():
        return False
    trained = torch.is_grad_enabled() and (x.requires_grad or any(weight.requires_grad for weight in weights))
    price = _PRODUCTS_PER_STEP_TRAINED if trained else _PRODUCTS_PER_STEP
    size = x.shape[1:3]
    products = sum(math.prod(map(_pairs, size, weight.shape[2:])) for weight in weights)
    numbers = math.prod(_transformed(size, _cover(weights)))
    return products > price * numbers * math.log2(numbers)


def _pairs(side: int, kernel: int) -> int:
    """Pairs of a pixel and one that the kernel on it sees, along one axis."""
    reach = min(kernel // 2, side - 1)
    return side * (2 * reach + 1) - reach * (reach + 1)


class _Fourier(Function):
    """Same-size depthwise convolution of (N, H, W, C) with one kernel (C, kh, kw), no larger than the map can see."""

    @staticmethod
    def forward(ctx, x, kernel, bias):
        ctx.save_for_backward(x, kernel)
        ctx.bias_dtype = None if bias is None else bias.dtype
        (height, width), (top, left) = x.shape[1:3], (side // 2 for side in kernel.shape[1:])
        size = _transformed((height, width), kernel.shape[1:])
        planes = _planes(x)
        # A convolution flips the kernel, what networks call one does not.
        kernel = kernel.to(planes.dtype).flip(1, 2)
        bias = planes.new_zeros(len(kernel)) if bias is None else bias.to(planes.dtype)
        out = torch.empty_like(planes)
        for part in _parts(len(kernel)):
            spectrum = _spectrum(planes[:, part], size).mul_(_spectrum(kernel[part], size))
            filtered = _inverse(spectrum, size, slice(top, top + height), slice(left, left + width))
            torch.add(filtered, bias[part, None, None], out=out[:, part])
        return _rows(out, x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, kernel = ctx.saved_tensors
        (height, width), (kh, kw) = x.shape[1:3], kernel.shape[1:]
        size = _transformed((height, width), (kh, kw))
        planes, grads = _planes(x), _planes(grad)
        flipped = kernel.to(planes.dtype).flip(1, 2)
        grad_planes, grad_kernel = torch.empty_like(planes), torch.empty_like(flipped)
        for part in _parts(len(kernel)):
            # At its place within the whole convolution, of which the output is the middle.
            of_grad = _spectrum(F.pad(grads[:, part], (kw // 2, 0, kh // 2, 0)), size)
            if ctx.needs_input_grad[1]:
                product = (_spectrum(planes[:, part], size).conj() * of_grad).sum(0)
                grad_kernel[part] = _inverse(product, size, slice(kh), slice(kw))
            if ctx.needs_input_grad[0]:
                product = of_grad.mul_(_spectrum(flipped[part], size).conj())
                grad_planes[:, part] = _inverse(product, size, slice(height), slice(width))
        return (
            _rows(grad_planes, x.dtype) if ctx.needs_input_grad[0] else None,
            grad_kernel.flip(1, 2).to(kernel.dtype) if ctx.needs_input_grad[1] else None,
            grads.sum((0, 2, 3)).to(ctx.bias_dtype) if ctx.needs_input_grad[2] else None,
        )


def _planes(x: Tensor) -> Tensor:
    """(N, H, W, C) as (N, C, H, W), contiguous and of a precision that a CPU transforms."""
    n, height, width, channels = x.shape
    planes = x.new_empty(n, channels, height * width)
    for plane, image in zip(planes, x.flatten(1, 2), strict=True):
        plane.copy_(image.t())  # in two dimensions, torch transposes three times as fast
    return planes.unflatten(2, (height, width)).to(torch.promote_types(x.dtype, torch.float32))


def _rows(planes: Tensor, dtype: torch.dtype) -> Tensor:
    """(N, C, H, W) as (N, H, W, C), contiguous."""
    n, channels, height, width = planes.shape
    rows = planes.new_empty(n, height * width, channels, dtype=dtype)
    for row, image in zip(rows, planes.flatten(2).to(dtype), strict=True):
        row.copy_(image.t())
    return rows.unflatten(1, (height, width))


def _spectrum(x: Tensor, size: tuple[int, int]) -> Tensor:
    # Rows first: the transform along columns adds their padding, which needs none along rows.
    return torch.fft.fft(torch.fft.rfft(x, size[1]), size[0], dim=-2)


def _inverse(spectrum: Tensor, size: tuple[int, int], rows: slice, columns: slice) -> Tensor:
    return torch.fft.irfft(torch.fft.ifft(spectrum, dim=-2)[..., rows, :], size[1])[..., columns]


def _transformed(size: Sequence[int], kernel: Sequence[int]) -> tuple[int, int]:
    """Sides of the transform: enough zeros that no pixel kept meets one from the far side, and factors of 2, 3, 5."""
    height, width = (side + k // 2 for side, k in zip(size, kernel, strict=True))
    return _smooth(height), 2 * _smooth((width + 1) // 2)


def _smooth(number: int) -> int:
    while True:
        rest = number
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return number
        number += 1
