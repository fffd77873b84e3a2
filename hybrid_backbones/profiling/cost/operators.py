"""The cost of PyTorch's operators: formulas in addition to those of its FLOP counter, and operators that are free.

As in papers, multiply-adds are counted in convolutions, matrix products and attention. Fourier transforms and products
of spectra are counted too, since they implement convolutions. Normalisation, activation functions, pooling,
interpolation (including RoIAlign and deformed sampling) and operators that only move data are free. An operator is free
by PyTorch's tags and schema, or by its name in `FREE`.
"""

from collections.abc import Callable
from functools import cache
from math import log2, prod
from typing import Any

import torch
import torchvision  # noqa: F401, registers its operators
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten

# Free operators of aten that cannot be recognised by a tag or their schema.
_FREE = {
    'copies and choices of numbers': """
        _to_copy copy copy_ cat stack repeat flip roll index _unsafe_index index_put index_put_ index_select gather
        scatter scatter_ scatter_add scatter_add_ take masked_select masked_scatter masked_scatter_ embedding
        constant_pad_nd reflection_pad2d replication_pad2d _unsafe_view _reshape_copy pixel_shuffle pixel_unshuffle
        channel_shuffle im2col col2im tril triu nonzero unique_consecutive _unique2 resize_ set_ as_strided_
        _local_scalar_dense equal detach_""",
    'new tensors like another': """
        empty_like zeros_like ones_like full_like rand_like randn_like new_empty new_empty_strided new_full new_ones
        new_zeros fill fill_ zero zero_ uniform_ normal_ bernoulli bernoulli_ native_dropout linspace""",
    'pointwise without the tag': 'floor_divide',
    'sums along an axis, and order': """
        cumsum cumsum_ cumprod sort topk kthvalue median argsort max min aminmax bincount searchsorted isin""",
    'normalisation and softmax': """
        native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm
        miopen_batch_norm native_layer_norm native_group_norm _fused_rms_norm _softmax _safe_softmax _log_softmax glu
        _weight_norm_interface""",
    'pooling and interpolation': """
        max_pool2d_with_indices max_pool3d_with_indices avg_pool2d avg_pool3d _adaptive_avg_pool2d adaptive_max_pool2d
        upsample_linear1d upsample_nearest1d upsample_nearest2d _upsample_nearest_exact2d upsample_bilinear2d
        _upsample_bilinear2d_aa upsample_bicubic2d _upsample_bicubic2d_aa grid_sampler_2d cudnn_grid_sampler""",
}
FREE = frozenset(name for names in _FREE.values() for name in names.split())
FREE_OF_TORCHVISION = frozenset(['nms', 'roi_align', 'roi_pool', 'ps_roi_align', 'ps_roi_pool'])


@cache
def is_free(operator: OpOverload) -> bool:
    """Whether an operator has no multiply-adds: views, pointwise ones, reductions, new tensors, `FREE`."""
    name = operator._overloadpacket.__name__
    if operator.namespace == 'torchvision':
        return name in FREE_OF_TORCHVISION
    creates = not any('Tensor' in str(argument.type) for argument in operator._schema.arguments)
    if operator.is_view or creates or operator.namespace == 'prim':
        return True
    return operator.namespace == 'aten' and (name in FREE or _pointwise_or_reduction(name))


def _pointwise_or_reduction(name: str) -> bool:
    """By PyTorch's tags; `gelu_` has none, so those of `gelu` count too."""
    packets = [getattr(aten, n) for n in (name, name.removesuffix('_')) if hasattr(aten, n)]
    tags = {tag for packet in packets for overload in packet.overloads() for tag in getattr(packet, overload).tags}
    return bool(tags & {torch.Tag.pointwise, torch.Tag.reduction})


# Formulas below count FLOPs, two per multiplication with addition, as those of torch's counter do.


def _attention(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    """(..., T, d), (..., S, d), (..., S, e): scores of all pairs, and the weighted values. Masks save nothing."""
    return 2 * prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])


def _multi_head_attention(q: Tensor, k: Tensor, v: Tensor, dim: int, *_: Any, **__: Any) -> int:
    """torch.nn.MultiheadAttention in one kernel, (N, T, dim): four projections around attention."""
    projections = (2 * q.shape[:-1].numel() + k.shape[:-1].numel() + v.shape[:-1].numel()) * dim * dim
    return 2 * projections + _attention(q, k, v)


def _linear(x: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    return 2 * x.numel() * weight.shape[0]


def _matrix_vector(matrix: Tensor, *_: Any, **__: Any) -> int:
    return 2 * matrix.numel()


def _add_matrix_vector(_: Tensor, matrix: Tensor, *__: Any, **___: Any) -> int:
    return 2 * matrix.numel()


def _deformed(x: Tensor, weight: Tensor, *_: Any, out_val: Tensor, **__: Any) -> int:
    """The convolution of a deformable convolution; its sampling is interpolation."""
    return 2 * out_val.numel() * prod(weight.shape[1:])


def _transform(numbers: Tensor, dims: list[int]) -> float:
    return numbers.numel() * log2(prod(numbers.shape[dim] for dim in dims))


def _complex_transform(x: Tensor, dims: list[int], *_: Any, **__: Any) -> int:
    """5 n log2(n) for n complex numbers: Cooley and Tukey's, and what FFTW's benchmarks count."""
    return int(5 * _transform(x, dims))


def _to_spectrum(x: Tensor, dims: list[int], *_: Any, **__: Any) -> int:
    """Half of that for n real numbers."""
    return int(2.5 * _transform(x, dims))


def _from_spectrum(_: Tensor, dims: list[int], *__: Any, out_val: Tensor, **___: Any) -> int:
    return int(2.5 * _transform(out_val, dims))


def _product(x: Tensor, y: Any, *_: Any, out_val: Tensor, **__: Any) -> int:
    """A product of spectra, which is a convolution: four multiply-adds for each number. Other products are free."""
    spectra = all(isinstance(t, Tensor) and t.is_complex() for t in (x, y))
    return 8 * out_val.numel() if spectra else 0


FOURIER: dict[OpOverloadPacket, Callable[..., int]] = {
    aten._fft_c2c: _complex_transform,
    aten._fft_r2c: _to_spectrum,
    aten._fft_c2r: _from_spectrum,
    aten.mul: _product,
    aten.mul_: _product,
}
FORMULAS: dict[OpOverloadPacket | OpOverload, Callable[..., int]] = {
    **FOURIER,
    # As one operator, before PyTorch chooses a kernel by device and shape or decomposes it into products.
    aten.linear.default: _linear,
    aten.linear: _linear,
    aten.scaled_dot_product_attention.default: _attention,
    aten.scaled_dot_product_attention: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_fused_attention_overrideable: _attention,
    aten._native_multi_head_attention: _multi_head_attention,
    # torch's counter ignores in-place forms.
    aten.addmm_: flop_registry[aten.addmm],
    aten.baddbmm_: flop_registry[aten.baddbmm],
    aten._addmm_activation: flop_registry[aten.addmm],
    aten.addbmm: flop_registry[aten.baddbmm],
    aten.mv: _matrix_vector,
    aten.dot: _matrix_vector,
    aten.vdot: _matrix_vector,
    aten.addmv: _add_matrix_vector,
    aten.addmv_: _add_matrix_vector,
    torch.ops.torchvision.deform_conv2d: _deformed,
}
