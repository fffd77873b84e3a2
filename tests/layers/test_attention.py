"""Attention and windows against their plain definitions."""

from contextlib import nullcontext

import pytest
import torch
from largest import Largest
from torch import Tensor

from hybrid_backbones.layers import attention
from hybrid_backbones.layers.attention import (
    decomposed_attention,
    over_windows,
    relative_logits,
    table_attention,
    window_padding,
    window_partition,
    window_unpartition,
)


@pytest.mark.parametrize('size', [(8, 12), (7, 10), (3, 9), (1, 1)])
def test_windows_are_the_crops_of_the_padded_map(size):
    x = torch.randn(2, *size, 5)
    windows = window_partition(x, 4)
    padded = torch.zeros(2, -(-size[0] // 4) * 4, -(-size[1] // 4) * 4, 5)
    padded[:, : size[0], : size[1]] = x
    crops = [
        padded[n, top : top + 4, left : left + 4]
        for n in range(2)
        for top in range(0, padded.shape[1], 4)
        for left in range(0, padded.shape[2], 4)
    ]
    assert torch.equal(windows, torch.stack(crops))
    assert torch.equal(window_unpartition(windows, 4, size), x)


@pytest.mark.parametrize('size', [(8, 12), (7, 10), (3, 9)])
def test_padding_of_windows_is_where_the_map_is_not(size):
    outside = window_partition(torch.ones(2, *size, 1), 4)[..., 0] == 0
    rows, columns = window_padding(size, 4, 2, torch.device('cpu'))
    assert torch.equal(rows[:, 0, 0, :, None] | columns[:, 0, 0, None], outside)


# The last has more queries than are attended to at a time.
@pytest.mark.parametrize('size', [(8, 18), (10, 14), (14, 10), (1, 1), (29, 31)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_decomposed_attention_is_that_over_all_pairs(size, dtype):
    height, width = size
    q, k, v = torch.randn(3, 2, 2, height * width, 6).to(dtype)
    rel_height, rel_width = torch.randn(2 * height - 1, 6).to(dtype), torch.randn(2 * width - 1, 6).to(dtype)
    scores = torch.zeros(2, 2, height, width, height, width)
    for y in range(height):
        for x in range(width):
            query = q.unflatten(2, size)[:, :, y, x].float()
            rows = query @ rel_height[height - 1 - y :][:height].float().t()
            columns = query @ rel_width[width - 1 - x :][:width].float().t()
            scores[:, :, y, x] = rows[..., None] + columns[..., None, :]
    scores = scores.flatten(4).flatten(2, 3) + q.float() @ k.float().transpose(-1, -2)
    expected = scores.softmax(-1) @ v.float()
    parts = relative_logits(q, size, rel_height, rel_width)
    tolerance = dict(rtol=1e-4, atol=1e-5) if dtype == torch.float32 else dict(rtol=0, atol=0.1)
    for inputs in ((q, k, v, *parts), (q.clone().requires_grad_(), k, v, *parts)):
        torch.testing.assert_close(decomposed_attention(*inputs).float(), expected, **tolerance)


@pytest.mark.parametrize('size', [(8, 12), (7, 10), (3, 9), (2, 2)])
def test_every_window_is_seen_once_and_alone(size):
    x = torch.randn(2, *size, 3)
    out = over_windows(lambda windows: windows - windows.mean((1, 2), keepdim=True), x, 4)
    expected = x.clone()
    for top in range(0, size[0], 4):
        for left in range(0, size[1], 4):
            window = expected[:, top : top + 4, left : left + 4]
            window -= window.mean((1, 2), keepdim=True)
    torch.testing.assert_close(out, expected)


def table_attention_over_all_pairs(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    height, width, dim = q.shape[2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    y, x = y.flatten(), x.flatten()
    bias = table[:, y[:, None] - y + height - 1, x[:, None] - x + width - 1]
    q, k, v = (t.flatten(2, 3) for t in (q, k, v))
    weights = (q @ k.transpose(2, 3) / dim**0.5 + bias).softmax(-1)
    return (weights @ v).unflatten(2, (height, width))


@pytest.fixture(params=[None, 2**13, 1], ids=lambda numbers: f'{numbers} at a time')
def in_parts(request, monkeypatch):
    """Few numbers at a time take a map in parts: all of it, heads one by one, rows one by one."""
    if request.param is not None:
        for name, number in (('_SCORES', request.param), ('_CACHED', request.param), ('_PART', 30)):
            monkeypatch.setattr(attention, name, number)


@pytest.mark.usefixtures('in_parts')
@pytest.mark.parametrize('size', [(8, 18), (10, 14), (14, 10), (1, 1), (1, 6), (7, 1)])
def test_table_attention_and_its_gradients_are_those_over_all_pairs(size):
    height, width = size
    # As a linear layer with the heads first lays them out.
    qkv = torch.randn(2, *size, 3, 12, dtype=torch.double, requires_grad=True)
    table = torch.randn(3, 2 * height - 1, 2 * width - 1, dtype=torch.double, requires_grad=True)
    parts = *qkv.permute(0, 3, 1, 2, 4).chunk(3, -1), table
    expected, actual = table_attention_over_all_pairs(*parts), table_attention(*parts)
    torch.testing.assert_close(actual, expected)
    with torch.no_grad():
        torch.testing.assert_close(table_attention(*parts), expected)
    grad = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(actual, (qkv, table), grad), torch.autograd.grad(expected, (qkv, table), grad)
    )


@pytest.fixture(params=[None, 2**12, 1], ids=lambda pairs: f'{pairs} pairs')
def on_a_gpu(request, monkeypatch):
    """GPUs' way on a CPU. Few pairs at a time take heads in groups, and rows of queries in bands."""
    monkeypatch.setattr(attention, '_attend_on_cpu', attention._attend_by_head_groups)
    if request.param is not None:
        monkeypatch.setattr(attention, '_PAIRS', request.param)


@pytest.mark.usefixtures('on_a_gpu')
@pytest.mark.parametrize('size', [(4, 6), (7, 10), (10, 7), (1, 1), (1, 6), (7, 1)])
def test_on_a_gpu_table_attention_and_its_gradients_are_those_over_all_pairs(size):
    test_table_attention_and_its_gradients_are_those_over_all_pairs(size)


@pytest.mark.usefixtures('on_a_gpu')
def test_on_a_gpu_table_attention_in_bf16_is_near_that_over_all_pairs():
    test_table_attention_in_bf16_is_near_that_over_all_pairs()


def test_on_a_gpu_the_bias_of_table_attention_is_not_kept_for_the_backward_pass(monkeypatch):
    monkeypatch.setattr(attention, '_attend_on_cpu', attention._attend_by_head_groups)
    q, k, v = (t.requires_grad_() for t in torch.randn(3, 1, 2, 8, 8, 8))
    kept = []
    monkeypatch.setattr(attention, 'recomputed', lambda bias, make: kept.append((bias, make())) or nullcontext())
    table_attention(q, k, v, torch.randn(2, 15, 15, requires_grad=True))
    ((bias, again),) = kept
    assert bias.shape == (2, 64, 64) and torch.equal(bias, again)


def test_table_attention_takes_the_middle_of_a_larger_table():
    q, k, v = torch.randn(3, 2, 3, 4, 5, 8)
    table = torch.randn(3, 13, 13)
    expected = table_attention_over_all_pairs(q, k, v, table[:, 3:10, 2:11])
    torch.testing.assert_close(table_attention(q, k, v, table), expected)


@pytest.mark.usefixtures('in_parts')
def test_table_attention_in_bf16_is_near_that_over_all_pairs():
    parts = [*torch.randn(3, 1, 2, 9, 13, 8).bfloat16(), torch.randn(2, 17, 25).bfloat16()]
    wide = [part.float().requires_grad_() for part in parts]
    parts = [part.requires_grad_() for part in parts]
    expected, actual = table_attention_over_all_pairs(*wide), table_attention(*parts)
    torch.testing.assert_close(actual.float(), expected, rtol=0, atol=0.03)
    grad = torch.randn_like(actual)
    for a, b in zip(
        torch.autograd.grad(actual, parts, grad), torch.autograd.grad(expected, wide, grad.float()), strict=True
    ):
        assert a.dtype == torch.bfloat16
        assert (a.float() - b).norm() < 0.01 * b.norm()


def test_table_attention_lays_out_no_matrix_of_all_pairs(monkeypatch):
    for name, number in (('_SCORES', 2**16), ('_CACHED', 2**16), ('_PART', 100)):
        monkeypatch.setattr(attention, name, number)
    q, k, v = (t.requires_grad_() for t in torch.randn(3, 1, 2, 24, 30, 8))
    table = torch.randn(2, 47, 59, requires_grad=True)
    with Largest() as largest:
        table_attention(q, k, v, table).sum().backward()
    assert largest.numbers < 2 * (24 * 30) ** 2 / 5
