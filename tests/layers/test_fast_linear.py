"""Linear layers by packed products in training and in heads: gradients, hooks and files are those of `nn.Linear`."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hybrid_backbones import create_backbone
from hybrid_backbones.layers import packed, product_choice, trained_linear
from hybrid_backbones.layers.fast_linear import FastLinear, use_fast_linear
from hybrid_backbones.layers.linear import Pointwise, linear

pytestmark = pytest.mark.skipif(not packed.is_available(torch.float32), reason='this build has no packed products')


@pytest.fixture(autouse=True)
def packs_everything(monkeypatch):
    monkeypatch.setenv('HYBRID_BACKBONES_PRODUCTS', 'packed')


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """One entry per packed product of training."""
    called, original = [], trained_linear.packed_linear
    monkeypatch.setattr(trained_linear, 'packed_linear', lambda *args: called.append('packed') or original(*args))
    return called


@pytest.mark.parametrize('shape', [(37, 48), (2, 37, 48), (2, 5, 7, 48)])
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('passes', [(True, True, True), (False, True, False), (True, False, True)])
def test_gradients_are_exact(shape, bias, passes, calls, monkeypatch):
    chosen = dict(zip(('forward', 'input gradient', 'weight gradient'), passes, strict=True))
    monkeypatch.setattr(trained_linear, 'prefers', lambda kind, *args: chosen[kind])
    layer, x = nn.Linear(48, 80, bias), torch.randn(shape, requires_grad=True)
    wanted = [x, *layer.parameters()]
    out, expected = linear(x, layer.weight, layer.bias), layer(x)
    grad = torch.randn(80)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    # The sum's gradient is expanded, without an element of its own for every output.
    results, references = (torch.autograd.grad((y * grad).sum(), wanted, retain_graph=True) for y in (out, expected))
    for result, reference in zip(results, references, strict=True):
        torch.testing.assert_close(result, reference, rtol=1e-5, atol=1e-4)
    assert len(calls) == sum(passes)


def test_what_needs_no_gradient_gets_none(calls):
    layer, x = nn.Linear(48, 80), torch.randn(37, 48)
    linear(x, layer.weight, layer.bias).sum().backward()
    assert len(calls) == 2
    calls.clear()
    layer.requires_grad_(False)
    linear(x.requires_grad_(), layer.weight, layer.bias).sum().backward()
    assert len(calls) == 2
    assert x.grad is not None


def test_second_derivatives_are_those_of_the_layer(calls):
    layer, x = nn.Linear(48, 80), torch.randn(37, 48, requires_grad=True)
    penalties = []
    for out in (linear(x, layer.weight, layer.bias), layer(x)):
        (grad,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        penalties.append(torch.autograd.grad(grad.square().sum(), layer.weight)[0])
    torch.testing.assert_close(*penalties, rtol=1e-4, atol=1e-2)
    assert len(calls) == 3  # none for the gradient that is differentiated again


def test_autocast_trains_in_its_dtype(calls):
    layer, x = nn.Linear(48, 80), torch.randn(37, 48)
    grads = []
    for call in (lambda: linear(x, layer.weight, layer.bias), lambda: layer(x)):
        with torch.autocast('cpu', torch.bfloat16):
            out = call()
        assert out.dtype == torch.bfloat16
        grads.append(torch.autograd.grad(out.float().square().sum(), layer.weight)[0])
    assert grads[0].dtype == torch.float32
    torch.testing.assert_close(*grads, rtol=5e-2, atol=0.5)
    assert bool(calls) == packed.is_available(torch.bfloat16)


def test_exporters_and_transforms_take_the_plain_path(calls):
    layer, x = FastLinear(48, 80), torch.randn(37, 48)
    weights = dict(layer.named_parameters())
    torch.func.grad(lambda weights: torch.func.functional_call(layer, weights, x).sum())(weights)
    torch.export.export(layer, (x,))
    assert not calls


def test_pointwise_convolutions_train_packed(calls):
    conv, x = Pointwise(48, 80, 1), torch.randn(2, 48, 5, 7, requires_grad=True)
    out, expected = conv(x), F.conv2d(x, conv.weight, conv.bias)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    wanted = x, conv.weight, conv.bias
    results, references = (torch.autograd.grad(y.square().sum(), wanted) for y in (out, expected))
    assert len(calls) == 3
    for result, reference in zip(results, references, strict=True):
        torch.testing.assert_close(result, reference, rtol=1e-5, atol=1e-3)


class _Adapter(nn.Linear):
    pass


def test_only_the_class_of_layers_changes(calls):
    head = nn.Sequential(nn.Linear(48, 80), nn.ReLU(), _Adapter(80, 16))
    x, keys, hooked = torch.randn(37, 48), list(head.state_dict()), []
    expected = head(x)
    assert use_fast_linear(head) == ['0']
    head[0].register_forward_hook(lambda *args: hooked.append(args))
    assert list(head.state_dict()) == keys
    for network in (head, copy.deepcopy(head)):
        torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-5)
    assert len(hooked) == 2
    assert calls
    assert type(pickle.loads(pickle.dumps(head[0].__class__(4, 4)))) is FastLinear


@torch.no_grad()
def test_heads_follow_their_weights_in_inference():
    layer = nn.Linear(48, 80)
    use_fast_linear(layer.eval())
    x = torch.randn(37, 48)
    for change in (lambda: layer.weight.mul_(2), lambda: (layer.weight.data.mul_(2), layer.eval()), layer.double):
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-5)
        assert layer in packed._kept
        change()
        x = x.to(layer.weight.dtype)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
    assert layer not in packed._kept
    assert layer(x[:0]).shape == (0, 80)


@pytest.mark.parametrize('name', ['deit_t', 'conv2former_n', 'hornet_t'])
def test_backbones_train_alike(name, calls, monkeypatch):
    torch.manual_seed(0)
    net, x = create_backbone(name, out_indices=(0, 1), drop_path_rate=0.0), torch.randn(1, 3, 64, 64)
    use_fast_linear(net)
    results = []
    for policy in ('packed', 'plain'):
        monkeypatch.setenv('HYBRID_BACKBONES_PRODUCTS', policy)
        net.zero_grad()
        sum(y.square().mean() for y in net(x)).backward()
        results.append({name: p.grad for name, p in net.named_parameters() if p.grad is not None})
    assert calls
    for key, grad in results[0].items():
        torch.testing.assert_close(grad, results[1][key], rtol=1e-3, atol=1e-5, msg=lambda text, key=key: key + text)


def test_the_measurement_runs_both(calls):
    for kind in ('forward', 'input gradient', 'weight gradient'):
        assert 0 < product_choice.measure((64, 32, 48), torch.float32, kind, trained_linear._steps) < 100
    assert len(calls) == 3 * (product_choice._REPETITIONS + 1)
