"""Packed products give what plain ones give, and follow every change of the weights."""

import copy
import json
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hybrid_backbones import create_backbone
from hybrid_backbones.layers import packed, product_choice
from hybrid_backbones.layers.channels_last import on_map
from hybrid_backbones.layers.folding import conv_norm
from hybrid_backbones.layers.linear import Pointwise, add_product, product, project, weights_of
from hybrid_backbones.layers.packed import Weights

pytestmark = pytest.mark.skipif(not packed.is_available(torch.float32), reason='this build has no packed products')


@pytest.fixture(autouse=True)
def packs_everything(monkeypatch):
    monkeypatch.setenv('HYBRID_BACKBONES_PRODUCTS', 'packed')


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """Names of the packed products that have been called."""
    called = []
    for name in ('packed_linear', 'packed_add_linear'):
        original = getattr(packed, name)

        def recorded(*args, name=name, original=original):
            called.append(name)
            return original(*args)

        monkeypatch.setattr(f'hybrid_backbones.layers.linear.{name}', recorded)
    return called


DTYPES = [
    pytest.param(
        dtype, marks=pytest.mark.skipif(not packed.is_available(dtype), reason='this processor has no such products')
    )
    for dtype in (torch.float32, torch.bfloat16, torch.float16)
]


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('bias', [True, False])
@torch.no_grad()
def test_products_are_those_of_the_layer(dtype, bias, calls):
    layer, x, addend = nn.Linear(48, 80, bias).to(dtype), torch.randn(2, 37, 48).to(dtype), torch.randn(2, 37, 80)
    expected, scale = layer(x), torch.rand(80).to(dtype)
    tolerance = dict(rtol=1e-5, atol=1e-5) if dtype == torch.float32 else dict(rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(project(layer, x), expected, **tolerance)
    weights = weights_of(layer)
    torch.testing.assert_close(product(x, weights, 'gelu'), F.gelu(expected), **tolerance)
    torch.testing.assert_close(product(x, weights, 'silu'), F.silu(expected), **tolerance)
    total = addend.to(dtype) + expected
    torch.testing.assert_close(add_product(addend.to(dtype), x, weights), total, **tolerance)
    if bias:
        total = addend.to(dtype) + expected * scale
        torch.testing.assert_close(add_product(addend.to(dtype), x, weights_of(layer, scale)), total, **tolerance)
    assert calls == ['packed_linear'] * 3 + ['packed_add_linear'] * (2 if bias else 1)


@torch.no_grad()
def test_weights_of_one_layer_in_different_ways():
    layer, x = nn.Linear(48, 80), torch.randn(2, 37, 48)
    half = Weights(layer, 40, (layer.weight, layer.bias), lambda: (layer.weight[:40], layer.bias[:40]), 'half')
    for _ in range(2):
        torch.testing.assert_close(project(layer, x), layer(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(product(x, half), layer(x)[..., :40], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_convolution_with_its_norm(calls):
    conv, norm, x = Pointwise(48, 80, 1, bias=False), nn.BatchNorm2d(80).eval(), torch.randn(2, 9, 7, 48)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    for _ in range(2):
        torch.testing.assert_close(conv_norm(x, conv, norm), on_map(norm, on_map(conv, x)), rtol=1e-5, atol=1e-5)
        norm.running_mean.normal_()  # seen the second time
    assert len(calls) == 4


@torch.no_grad()
def test_autocast_computes_in_its_dtype(calls):
    layer, x = nn.Linear(48, 80), torch.randn(2, 37, 48)
    with torch.autocast('cpu', torch.bfloat16):
        assert project(layer, x).dtype == torch.bfloat16
        torch.testing.assert_close(project(layer, x), layer(x), rtol=2e-2, atol=2e-2)
    assert calls == (['packed_linear'] * 2 if packed.is_available(torch.bfloat16) else [])


CHANGES = {
    'in place': lambda net: [p.mul_(1.5) for p in net.parameters()],
    'loaded': lambda net: net.load_state_dict({key: 1.5 * value for key, value in net.state_dict().items()}),
    'swapped through data': lambda net: [p.data.mul_(1.5) for p in net.parameters()] and net.eval(),
    'new parameters': lambda net: [_replace(m) for m in net.modules() if isinstance(m, nn.Linear | Pointwise)],
    'cast there and back': lambda net: net.bfloat16().float(),
}


def _replace(layer):
    layer.weight = nn.Parameter(layer.weight * 1.5)


@pytest.mark.parametrize('change', CHANGES)
@torch.no_grad()
def test_changed_weights_are_packed_again(change, calls, monkeypatch):
    net = create_backbone('hornet_t', out_indices=(0,)).eval()
    x = torch.randn(1, 3, 64, 64)
    before = net(x)[0].clone()
    assert calls
    CHANGES[change](net)
    after = net(x)[0]
    monkeypatch.setenv('HYBRID_BACKBONES_PRODUCTS', 'plain')
    torch.testing.assert_close(after, net(x)[0], rtol=1e-4, atol=1e-4)
    assert not torch.equal(before, after)


def test_gradients_copies_and_files_know_nothing_of_packed_weights(calls):
    net = create_backbone('deit_t', pyramid=None, blocks=(0,)).eval()
    x, keys = torch.randn(1, 3, 64, 64), net.state_dict().keys()
    size = len(pickle.dumps(net))
    with torch.no_grad():
        expected = net(x)[0]
    assert calls
    assert net.state_dict().keys() == keys
    assert len(pickle.dumps(net)) == size
    count = len(packed._kept)
    duplicate = copy.deepcopy(net)
    assert len(packed._kept) == count
    with torch.no_grad():
        torch.testing.assert_close(duplicate(x)[0], expected)
    assert len(packed._kept) == 2 * count
    del duplicate
    assert len(packed._kept) == count
    calls.clear()
    net(x)[0].sum().backward()
    assert not calls
    assert net.blocks[0].mlp.fc1.weight.grad is not None
    net.train()
    assert not set(packed._kept) & set(net.modules())


@torch.no_grad()
def test_counters_of_operators_see_plain_products(calls):
    layer, x = nn.Linear(48, 80), torch.randn(2, 37, 48)
    with FlopCounterMode(display=False) as counter:
        project(layer, x)
    assert counter.get_total_flops() == 2 * 2 * 37 * 48 * 80
    assert not calls


@torch.no_grad()
def test_a_build_without_the_operator_computes_plainly(monkeypatch, calls, caplog):
    def missing(weight):
        raise RuntimeError('no such operator')

    monkeypatch.setattr(packed, 'pack', missing)
    packed.is_available.cache_clear()
    layer, x = nn.Linear(48, 80), torch.randn(2, 37, 48)
    with caplog.at_level('INFO'):
        for _ in range(2):
            torch.testing.assert_close(project(layer, x), layer(x))
    packed.is_available.cache_clear()
    assert not calls
    assert [record.message for record in caplog.records] == ['no packed products of torch.float32: no such operator']


@pytest.mark.parametrize(('ratio', 'chosen'), [(0.5, True), (0.99, False), (2.0, False)])
def test_a_measurement_decides_once_per_machine(ratio, chosen, monkeypatch, tmp_path):
    measured = []
    monkeypatch.setenv('HYBRID_BACKBONES_PRODUCTS', 'measured')
    monkeypatch.setenv('HYBRID_BACKBONES_CACHE', str(tmp_path))
    monkeypatch.setattr(product_choice, 'measure', lambda *args: measured.append(args[:3]) or ratio)
    for rows in (4000, 4200):
        product_choice._chosen.cache_clear()  # as in another process
        assert product_choice.prefers_packed(rows, 384, 1536, torch.float32, 'gelu') is chosen
    product_choice._chosen.cache_clear()
    assert measured == [((1024, 512, 2048), torch.float32, 'gelu')]
    assert list(json.loads((tmp_path / 'products.json').read_text()).values()) == [ratio]
    assert not product_choice.prefers_packed(8, 384, 1536, torch.float32, 'gelu')  # too small to measure


def test_the_measurement_runs_both():
    for kind in ('none', 'gelu', 'silu', 'add'):
        assert 0 < product_choice.measure((64, 32, 48), torch.float32, kind) < 100


def test_an_unknown_policy_is_an_error(monkeypatch):
    monkeypatch.setenv('HYBRID_BACKBONES_PRODUCTS', 'fast')
    with pytest.raises(ValueError, match='choose one of measured, plain, packed'):
        product_choice.prefers_packed(4096, 384, 1536, torch.float32, 'none')
