"""Attention by packed products is PyTorch's, with every kind of bias, and stays out of the way of everything else."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from hybrid_backbones.layers import packed, packed_attention, product_choice
from hybrid_backbones.layers.attention import attention, decomposed_attention, table_attention
from hybrid_backbones.layers.packed_attention import PackedAttention, attention_to

pytestmark = pytest.mark.skipif(not packed.is_available(torch.float32), reason='this build has no packed products')
# Of results near 1; those of products in another order.
TOLERANCE = dict(rtol=2e-6, atol=2e-6)


@pytest.fixture(autouse=True)
def packs_everything(monkeypatch):
    monkeypatch.setenv('HYBRID_BACKBONES_PRODUCTS', 'packed')
    # Several parts, the last of which is not full.
    monkeypatch.setattr(packed_attention, '_SCORES', 0)
    monkeypatch.setattr(packed_attention, '_FEWEST', 32)


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """One entry per call of packed attention."""
    called, original = [], PackedAttention.__call__
    monkeypatch.setattr(PackedAttention, '__call__', lambda *args: called.append('packed') or original(*args))
    return called


def heads(queries: int, keys: int, dim: int = 16, values: int = 24) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of two images with three heads, laid out as projections give them."""
    sizes = (queries, dim), (keys, dim), (keys, values)
    return tuple(torch.randn(2, tokens, 3, length).transpose(1, 2) for tokens, length in sizes)


def definition(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | float, scale: float) -> Tensor:
    q, k, v = (t.double() for t in (q, k, v))
    return ((q @ k.transpose(2, 3) * scale + bias).softmax(-1) @ v).float()


@pytest.mark.parametrize('scale', [None, 0.7])
@torch.no_grad()
def test_it_is_that_over_all_pairs(scale, calls):
    q, k, v = heads(75, 50)
    expected = definition(q, k, v, 0, 0.25 if scale is None else scale)
    torch.testing.assert_close(attention(q, k, v, scale), expected, **TOLERANCE)
    assert calls


@pytest.mark.parametrize('images', [1, 2])
@torch.no_grad()
def test_parts_of_queries_with_a_bias(images, calls):
    (q, k, v), bias = heads(75, 50), torch.randn(images, 3, 75, 50)
    expected = definition(q, k, v, bias, 0.25)
    attend = attention_to(k, v, q, biased=True, once=False)
    for part in (slice(0, 40), slice(40, 75)):
        torch.testing.assert_close(attend(q[:, :, part], bias[:, :, part]), expected[:, :, part], **TOLERANCE)
    assert len(calls) == 2


@torch.no_grad()
def test_large_scores_do_not_overflow():
    q, k, v = heads(75, 50)
    q = 1000 * q
    torch.testing.assert_close(attention(q, k, v), F.scaled_dot_product_attention(q, k, v), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_biases_of_rows_columns_and_tables(calls, monkeypatch):
    (q, k, v), rows, columns = heads(35, 35), torch.randn(2, 3, 35, 5), torch.randn(2, 3, 35, 7)
    on_map = [t.unflatten(2, (5, 7)) for t in heads(35, 35, 16, 16)]
    table = torch.randn(3, 9, 13)
    results = decomposed_attention(q, k, v, rows, columns), table_attention(*on_map, table)
    assert len(calls) >= 2
    monkeypatch.setenv('HYBRID_BACKBONES_PRODUCTS', 'plain')
    expected = decomposed_attention(q, k, v, rows, columns), table_attention(*on_map, table)
    for result, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(result, wanted, **TOLERANCE)


def test_the_forward_pass_of_tables_in_training_has_the_plain_gradients(calls, monkeypatch):
    parts = [t.unflatten(2, (5, 7)).requires_grad_() for t in heads(35, 35, 16, 16)]
    parts.append(torch.randn(3, 9, 13, requires_grad=True))
    results = []
    for policy in ('packed', 'plain'):
        monkeypatch.setenv('HYBRID_BACKBONES_PRODUCTS', policy)
        out = table_attention(*parts)
        results.append([out, *torch.autograd.grad(out.square().sum(), parts)])
    assert calls
    for result, wanted in zip(*results, strict=True):
        torch.testing.assert_close(result, wanted, rtol=1e-5, atol=1e-5)


def test_gradients_autocast_and_counters_take_the_plain_path(calls):
    q, k, v = heads(75, 50, 16, 16)
    for part in (q, k, v):
        part.requires_grad_()
        assert attention(q, k, v).requires_grad
        part.requires_grad_(False)
    with torch.autocast('cpu', torch.bfloat16):
        attention(q, k, v)
    attention(q.bfloat16(), k.bfloat16(), v.bfloat16())
    with FlopCounterMode(display=False), torch.no_grad():
        attention(q, k, v)
    torch.func.vmap(attention)(q[None], k[None], v[None])
    assert not calls


@torch.no_grad()
def test_compilers_and_exporters_take_the_plain_path(calls):
    class Layer(torch.nn.Module):
        def forward(self, q, k, v):
            return attention(q, k, v)

    parts = heads(75, 50, 16, 16)
    exported = torch.export.export(Layer(), parts).module()
    torch.testing.assert_close(exported(*parts), attention(*parts), **TOLERANCE)
    assert len(calls) == 1
    torch.jit.trace(Layer(), parts, check_trace=False)
    assert len(calls) == 1


def test_only_small_attention_is_not_measured(monkeypatch, tmp_path):
    measured = []
    monkeypatch.setenv('HYBRID_BACKBONES_PRODUCTS', 'measured')
    monkeypatch.setenv('HYBRID_BACKBONES_CACHE', str(tmp_path))
    monkeypatch.setattr(product_choice, 'measure', lambda *args: measured.append(args[:3]) or 0.5)
    product_choice._chosen.cache_clear()
    for tokens in (49, 4000, 4200):
        q = torch.empty(1, 1, tokens, 64)
        attend = attention_to(q, q, q, biased=True, once=False)
        assert isinstance(attend, PackedAttention) is (tokens > 49)
    product_choice._chosen.cache_clear()
    assert measured == [((1024, 4096, 64), torch.float32, 'biased attention')]


def test_the_measurement_runs_both(calls):
    for kind in ('attention', 'biased attention'):
        assert 0 < product_choice.measure((64, 32, 16), torch.float32, kind, packed_attention._steps) < 100
    assert len(calls) == 2 * (product_choice._REPETITIONS + 1)
