"""Adapters, hooks, quantizers and sharding work with every layer of every backbone."""

import copy

import pytest
import torch
from backbones.test_contract import build, loss_of
from families import ONE_OF_EACH
from torch import Tensor, nn

from hybrid_backbones.layers.position import SizeCache

pytestmark = pytest.mark.parametrize('name', ONE_OF_EACH)


class Adapter(nn.Module):
    """A frozen layer plus a low-rank layer of the same kind, built as peft's LoRA builds it, and dilated as the
    layer is; nothing else of the layer is to be seen from outside.
    """

    def __init__(self, base: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        if isinstance(base, nn.Linear):
            self.down = nn.Linear(base.in_features, 2, bias=False)
            self.up = nn.Linear(2, base.out_features, bias=False)
        else:
            window = base.kernel_size, base.stride, base.padding, base.dilation
            self.down = type(base)(base.in_channels, 2, *window, bias=False)
            self.up = nn.Conv2d(2, base.out_channels, 1, bias=False)
        self.scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * self.up(self.down(x))


class Rounded(nn.Module):
    """A linear layer with weights of 4 bits, as quantizers replace `nn.Linear`."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        step = base.weight.detach().abs().amax(1, keepdim=True) / 7
        self.register_buffer('steps', (base.weight.detach() / step).round().to(torch.int8))
        self.register_buffer('step', step)
        self.offset = base.bias

    def forward(self, x: Tensor) -> Tensor:
        y = x @ (self.steps * self.step).to(x.dtype).t()
        return y if self.offset is None else y + self.offset


def layers_of(network: nn.Module, *types: type) -> list[str]:
    return [key for key, module in network.named_modules() if isinstance(module, types)]


def replace(network: nn.Module, key: str, module: nn.Module) -> None:
    parent, _, child = key.rpartition('.')
    setattr(network.get_submodule(parent), child, module)


def adapt(network: nn.Module) -> dict[str, Adapter]:
    """Adapters in place of all linear layers and convolutions, by name."""
    adapters = {}
    for key in layers_of(network, nn.Linear, nn.Conv2d):
        adapters[key] = Adapter(network.get_submodule(key))
        replace(network, key, adapters[key])
    return adapters


def leaves_of(network: nn.Module) -> dict[str, nn.Module]:
    """Layers without layers inside; neither empty containers, nor caches, which are for inference, nor timm's unused
    placeholders.
    """
    other = nn.ModuleDict, nn.ModuleList, nn.Identity, nn.Dropout, SizeCache
    modules = network.named_modules()
    return {key: module for key, module in modules if not list(module.children()) and not isinstance(module, other)}


def is_different(maps: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> bool:
    return any((a - b).abs().max() > 1e-4 for a, b in zip(maps, others, strict=True))


@pytest.fixture
def image() -> Tensor:
    return torch.randn(2, 3, 64, 64)


@pytest.mark.parametrize('training', [True, False], ids=['training', 'evaluation'])
def test_every_adapter_gets_a_gradient(name, training, image):
    network = build(name)
    adapters = adapt(network)
    loss_of(network.train(training)(image)).backward()
    for key, adapter in adapters.items():
        for layer in (adapter.down, adapter.up):
            assert layer.weight.grad is not None, key
            assert layer.weight.grad.abs().max() > 0, key


@pytest.mark.parametrize('fused', [False, True], ids=['', 'fused'])
def test_every_adapter_changes_inference(name, fused, image):
    network = build(name).eval()
    if fused:
        network.fuse()
    with torch.inference_mode():
        expected = network(image)
        adapters = adapt(network)
        for adapter in adapters.values():
            adapter.scale = 0.0
        torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-4)
        for key, adapter in adapters.items():
            adapter.scale = 1.0
            assert is_different(network(image), expected), key
            adapter.scale = 0.0


def test_fusing_a_network_with_adapters_is_an_error(name):
    network = build(name).eval()
    before = network.state_dict().keys()
    if copy.deepcopy(network).fuse().state_dict().keys() == before:
        pytest.skip('nothing to fuse')
    adapt(network)
    with pytest.raises(TypeError, match=r'fuse.*Adapter.*merge'):
        network.fuse()


def test_every_replaced_linear_layer_changes_inference(name, image):
    network = build(name).eval()
    with torch.inference_mode():
        expected = network(image)
        for key in layers_of(network, nn.Linear):
            layer = network.get_submodule(key)
            replace(network, key, Rounded(layer))
            assert is_different(network(image), expected), key
            replace(network, key, layer)


@pytest.mark.parametrize('mode', ['training', 'evaluation', 'inference'])
def test_every_forward_hook_is_called(name, mode, image):
    network = build(name).train(mode == 'training')
    with torch.set_grad_enabled(mode != 'inference'):
        expected = network(image)
    leaves, called = leaves_of(network), set()
    for key, leaf in leaves.items():
        leaf.register_forward_hook(lambda *_, key=key: called.add(key))
    with torch.set_grad_enabled(mode != 'inference'):
        torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-4)
    assert called == leaves.keys()


def test_outputs_of_blocks_that_hooks_keep_are_not_overwritten(name, image, monkeypatch):
    network = build(name).eval()
    blocks, kept, copies = [], [], []
    run_block = network.run_block
    monkeypatch.setattr(network, 'run_block', lambda *args, **kw: blocks.append(args[0]) or run_block(*args, **kw))

    def keep(module, args, out):
        kept.append(out)
        copies.append(out.clone())

    with torch.inference_mode():
        network(image)
        if not blocks:
            pytest.skip('blocks of timm, which overwrite nothing')
        for block in dict.fromkeys(blocks):
            block.register_forward_hook(keep)
        network(image)
    assert len(kept) == len(set(blocks))
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


@pytest.mark.parametrize('training', [True, False], ids=['training', 'evaluation'])
def test_a_parameter_is_read_by_its_module_alone(name, training, image):
    """As with FSDP: a parameter is there from its module's forward hooks on until they end."""
    network = build(name).train(training)
    # Networks of timm are not called as a whole: units of sharding are their blocks, or the backbone.
    whole = getattr(network, 'trunk', None)
    expected = [m.detach() for m in copy.deepcopy(network)(image)]
    for module in [m for m in network.modules() if m._parameters and m is not whole]:
        parameters = dict(module._parameters)
        module.register_forward_pre_hook(lambda m, _, own=parameters: m._parameters.update(own))
        module.register_forward_hook(lambda m, *_: m._parameters.clear())
        module._parameters.clear()
    maps = network(image)
    torch.testing.assert_close(list(maps), expected, rtol=1e-4, atol=1e-4)
    loss_of(maps).backward()


def test_peft_trains_it(name, image):
    from peft import LoraConfig, get_peft_model

    network = build(name)
    targets = [
        key
        for key in layers_of(network, nn.Linear, nn.Conv2d)
        if getattr(network.get_submodule(key), 'groups', 1) == 1  # peft's rank is a multiple of the groups
    ]
    model = get_peft_model(network, LoraConfig(r=2, target_modules=targets))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # peft's second factor is zero at first, and with it the gradient of the first one
        optimizer.zero_grad()
        loss_of(model(image)).backward()
        optimizer.step()
    trained = {key: p.grad for key, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * len(targets)
    assert all('lora_' in key and grad.abs().max() > 0 for key, grad in trained.items())
