"""Weights of attention are those that the network used: with its values they make the layer's own output."""

from collections.abc import Sequence
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from hybrid_backbones import create_backbone, list_backbones
from hybrid_backbones.backbones import botnet, convit, cvt
from hybrid_backbones.backbones.factory import find_backbone
from hybrid_backbones.layers import transformer
from hybrid_backbones.visualize.attention_weights import FAMILIES, AttentionMap, attention_layers, attention_of

# With windows, the blocks 0 and 3 of six have them.
PLAIN = dict(depth=6, dim=32, heads=4)
NETWORKS = {
    'deit_t': dict(arch=dict(**PLAIN, mlp_ratio=2, stem=())),
    'deit_s': dict(arch=dict(**PLAIN, mlp_ratio=2, stem=()), distilled=True, window_size=2),
    'ceit_t': dict(arch=PLAIN),
    'ceit_s': dict(arch=PLAIN, window_size=3),
    'convit_t': dict(arch=dict(**PLAIN, local=3)),
    'convit_s': dict(arch=dict(**PLAIN, local=3), window_size=2),
    'cvt_13': dict(arch=dict(depths=(1, 1, 2), dims=(8, 16, 24), heads=(1, 2, 3))),
    'cvt_21': dict(arch=dict(depths=(1, 1, 1), dims=(8, 16, 24), heads=(1, 2, 3)), kv_stride=3),
    'coatnet_0': dict(arch=dict(depths=(1, 1, 2, 1), dims=(8, 8, 16, 64, 96))),
    'coatnet_1': dict(arch=dict(depths=(1, 1, 2, 1), dims=(8, 8, 16, 64, 96)), window_size=3),
    'coatnet_2': dict(arch=dict(depths=(1, 1, 1, 1), dims=(8, 8, 32, 64, 96)), stages='CTTT', table_size=None),
    'moat_0': dict(arch=dict(depths=(1, 1, 2, 1), dims=(8, 8, 16, 32, 64))),
    'moat_1': dict(arch=dict(depths=(1, 1, 2, 1), dims=(8, 8, 16, 32, 64)), window_size=(3, 2)),
    'moat_2': dict(arch=dict(depths=(1, 1, 1, 1), dims=(8, 8, 16, 32, 64)), position_tables=False),
    'botnet_50': dict(arch=dict(depths=(1, 1, 1, 2), width=8, heads=2, stride=2)),
    'botnet_s1_50': dict(arch=dict(depths=(1, 1, 1, 2), width=8, heads=2, stride=1), window_size=4),
}
# Not square, no multiple of any stride or window.
SIZE = 92, 117
POINTS = (None, (91, 116), (50, 20), (33, 99))


def lively(network: nn.Module) -> nn.Module:
    """Random weights everywhere: tables and gates of zero would hide mistakes."""
    for parameter in network.parameters():
        parameter.data.uniform_(-0.5, 0.5)
    return network.double().eval()


@pytest.fixture(scope='module', params=NETWORKS)
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(1)
    return lively(create_backbone(request.param, **NETWORKS[request.param]))


def own_outputs(network: nn.Module, image: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Outputs of the heads of every attention layer as the network runs: prefix tokens (P, C) and map (H, W, C)."""
    found, stops = {}, []

    def note(name: str, out: Tensor, size: Sequence[int] | None) -> None:
        if size is None:
            found[name] = out[0, 0, :0], out[0]
        else:
            special = out.shape[1] - size[0] * size[1]
            found[name] = out[0, :special], out[0, special:].unflatten(0, tuple(size))

    def before_proj(module: nn.Module, args: tuple, kwargs: dict, name: str) -> None:
        size = args[1] if len(args) > 1 else kwargs['size']
        stops.append(module.proj.register_forward_pre_hook(lambda _, inputs: note(name, inputs[0], size)).remove)

    def hook(module: nn.Module, args: tuple, out: Tensor, name: str) -> None:
        note(name, out.permute(0, 2, 3, 1) if isinstance(module, botnet.Attention) else out, None)

    for name, module in attention_layers(network):
        if isinstance(module, transformer.Attention | convit.GatedPositionalAttention | cvt.Attention):
            handle = module.register_forward_pre_hook(partial(before_proj, name=name), with_kwargs=True)
        else:
            handle = module.register_forward_hook(partial(hook, name=name))
        stops.append(handle.remove)
    network(image)
    for stop in stops:
        stop()
    return found


def made_of(found: AttentionMap) -> Tensor:
    """Weights times values, heads side by side."""
    weights = torch.cat([found.special, found.weights.flatten(1)], 1)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights), dtype=weights.dtype))
    assert weights.min() >= 0
    return torch.einsum('ht,thd->hd', weights, found.values).flatten()


def test_weights_times_values_are_the_layers_output(network: nn.Module) -> None:
    image = torch.randn(1, 3, *SIZE, dtype=torch.float64)
    with torch.no_grad():
        of_inference = own_outputs(network, image)
    of_training = own_outputs(network, image)
    for block, (name, module) in enumerate(attention_layers(network)):
        for point in POINTS:
            if getattr(module, 'stride', 1) == 2:
                continue  # see below
            found = attention_of(network, image, block, point)
            assert found.layer == name
            for front, grid in (of_inference[name], of_training[name]):
                assert (found.place is None) == (point is None and len(front) > 0)
                asked = front[0] if found.place is None else grid[found.place]
                torch.testing.assert_close(made_of(found), asked.detach(), rtol=1e-9, atol=1e-12)


def test_in_front_of_a_pool() -> None:
    """BoTNet's layer of stride 2 ends in an average over two by two queries."""
    network = lively(create_backbone('botnet_50', **NETWORKS['botnet_50'], window_size=3))
    image = torch.randn(1, 3, 96, 128, dtype=torch.float64)
    with torch.no_grad():
        _, grid = own_outputs(network, image)['layer4.0.conv2']
    assert grid.shape[:2] == (3, 4)
    points = [(32 + 16 * y, 64 + 16 * x) for y in (0, 1) for x in (0, 1)]
    maps = [attention_of(network, image, 0, point) for point in points]
    assert [found.place for found in maps] == [(2, 4), (2, 5), (3, 4), (3, 5)]
    torch.testing.assert_close(sum(map(made_of, maps)) / 4, grid[1, 2], rtol=1e-9, atol=1e-12)


def test_points_are_places_on_the_map_that_asks() -> None:
    network = create_backbone('cvt_13', **NETWORKS['cvt_13'])
    image = torch.randn(1, 3, 64, 96)
    maps = [attention_of(network, image, block, (40, 95)) for block in range(4)]
    assert [found.place for found in maps] == [(10, 23), (5, 11), (2, 5), (2, 5)]
    # Keys are at half the resolution.
    assert [tuple(found.weights.shape) for found in maps] == [(1, 8, 12), (2, 4, 6), (3, 2, 3), (3, 2, 3)]
    assert [found.special.shape[1] for found in maps] == [0, 0, 1, 1]


def test_windows_end_where_they_end() -> None:
    network = create_backbone('deit_s', **NETWORKS['deit_s'])
    found = attention_of(network, torch.randn(1, 3, *SIZE), 0, (50, 20))
    # A grid of 6 x 8 in windows of 2, and two special tokens.
    assert found.place == (3, 1) and found.special.shape == (4, 2)
    seen = torch.zeros(6, 8, dtype=torch.bool)
    seen[2:4, 0:2] = True
    assert torch.equal(found.weights.sum(0) > 0, seen)
    # The last column of windows of 3 has two columns.
    network = create_backbone('coatnet_1', **NETWORKS['coatnet_1'])
    found = attention_of(network, torch.randn(1, 3, *SIZE), 1, (0, 116))
    seen = torch.zeros(6, 8, dtype=torch.bool)
    seen[:3, 6:] = True
    assert torch.equal(found.weights.sum(0) > 0, seen)


def test_gates_mix_content_and_position() -> None:
    network = create_backbone('convit_t', **NETWORKS['convit_t'])
    found = attention_of(network, torch.randn(1, 3, 160, 160), 0, (80, 80))
    assert found.gate.tolist() == pytest.approx([0.7310586] * 4), 'as initialised'
    gate = found.gate[:, None, None]
    mixed = (1 - gate) * found.parts['content'] + gate * found.parts['position']
    torch.testing.assert_close(found.weights, mixed)
    # It starts as a convolution: four heads look at the corners of a square around the query.
    peaks = [divmod(int(part.argmax()), 10) for part in found.parts['position']]
    assert sorted((y - 5, x - 5) for y, x in peaks) == [(-1, -1), (-1, 0), (0, -1), (0, 0)]


def test_the_network_is_left_as_it_was(network: nn.Module) -> None:
    state = {key: value.clone() for key, value in network.state_dict().items()}
    network.train()
    attention_of(network, torch.randn(1, 3, 64, 64, dtype=torch.float64))
    assert network.training
    network.eval()
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_out_of_range(network: nn.Module) -> None:
    image = torch.randn(1, 3, 64, 80, dtype=torch.float64)
    count = len(attention_layers(network))
    for block in (count, -count - 1):
        with pytest.raises(ValueError, match=rf'block {block} of {type(network).__name__}.* 0 to {count - 1}'):
            attention_of(network, image, block)
    for point in ((64, 0), (0, 80), (-1, 0)):
        with pytest.raises(ValueError, match='outside the image of 64 rows and 80 columns'):
            attention_of(network, image, 0, point)


def test_every_family_has_attention_or_says_who_has() -> None:
    for name in {find_backbone(name)[0]: name for name in list_backbones()}.values():
        with torch.device('meta'):
            network = create_backbone(name)
        if isinstance(network, FAMILIES):
            assert attention_layers(network), name
        else:
            expected = rf'^{type(network).__name__} has no attention layer.* BoTNet \(botnet_101.*CvT \(cvt_13'
            with pytest.raises(ValueError, match=expected):
                attention_layers(network)
