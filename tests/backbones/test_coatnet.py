"""CoAtNet is timm's network where timm runs, and its definition elsewhere."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from goldens import Golden
from torch import Tensor, nn

from hybrid_backbones import create_backbone, create_classifier
from hybrid_backbones.backbones.coatnet import CoAtNet, MBConv, PooledNorm, TransformerBlock
from hybrid_backbones.checkpoints import load_pretrained
from hybrid_backbones.layers.attention import table_attention
from hybrid_backbones.layers.position import RelativeMLP

NAMES = [f'coatnet_{i}' for i in range(5)]


@pytest.fixture
def golden():
    return Golden('coatnet_0_224')


@pytest.mark.parametrize('way', ['plain', 'fused', 'with gradients'])
def test_outputs_are_those_of_timm(golden, tmp_path, way):
    torch.save(golden.state_dict(), tmp_path / 'timm.pth')
    network = create_backbone('coatnet_0', checkpoint=tmp_path / 'timm.pth', out_norm=False).eval()
    if way == 'fused':
        network.fuse()
    with torch.set_grad_enabled(way == 'with gradients'):
        outputs = network(golden.image())
    for stage, output in enumerate(outputs):
        golden.check(f'stage{stage}', output.detach())


def test_logits_are_those_of_timm(golden, tmp_path):
    torch.save(golden.state_dict(), tmp_path / 'timm.pth')
    network = create_classifier('coatnet_0', checkpoint=tmp_path / 'timm.pth').eval()
    with torch.inference_mode():
        golden.check_logits(network(golden.image()))


@pytest.mark.parametrize('name', NAMES)
def test_parameters_are_timm_s_to_the_last_number(name):
    import timm

    with torch.device('meta'):
        expected = timm.create_model(f'{name}_224').state_dict()
        actual = create_classifier(name).state_dict()
    assert {k: v.shape for k, v in actual.items()} == {k: v.shape for k, v in expected.items()}


TINY = dict(depths=(1, 1, 2, 1), dims=(8, 8, 32, 64, 96))


def build(**options) -> CoAtNet:
    """A small network whose every layer matters."""
    network = CoAtNet(**dict(arch=TINY, out_norm=False) | options).double()
    for name, parameter in network.named_parameters():
        if 'relative_position' in name:
            nn.init.normal_(parameter)
        elif parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        else:
            nn.init.normal_(parameter, mean=float('norm' in name and name.endswith('weight')), std=0.2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


def mean_of_blocks_of_four(x: Tensor) -> Tensor:
    """Pooling by 2, of what there is at the border."""
    height, width = x.shape[2:]
    rows = [
        torch.stack([x[:, :, y : y + 2, u : u + 2].mean((2, 3)) for u in range(0, width, 2)], -1)
        for y in range(0, height, 2)
    ]
    return torch.stack(rows, -2)


def norm2d(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    centred = x - x.mean(1, keepdim=True)
    normal = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
    return normal * norm.weight[:, None, None] + norm.bias[:, None, None]


def shortcut_of(block: nn.Module, x: Tensor) -> Tensor:
    if isinstance(block.shortcut, nn.Identity):
        return x
    x = mean_of_blocks_of_four(x)
    return x if block.shortcut.expand is None else block.shortcut.expand(x)


def conv_block(block: MBConv, x: Tensor) -> Tensor:
    y = F.gelu(block.norm1(block.conv1_1x1(block.pre_norm(x))))
    y = F.gelu(block.norm2(block.conv2_kxk(y)))
    y = y * block.se.fc2(F.silu(block.se.fc1(y.mean((2, 3), keepdim=True)))).sigmoid()
    return shortcut_of(block, x) + block.conv3_1x1(y)


def attention_block(block: TransformerBlock, x: Tensor, window: int | None) -> Tensor:
    strided = isinstance(block.norm1, PooledNorm)
    y = mean_of_blocks_of_four(norm2d(block.norm1.norm, x)) if strided else norm2d(block.norm1, x)
    height, width = y.shape[2:]
    attn = block.attn
    stored = attn.rel_pos.relative_position_bias_table
    side, heads = int(len(stored) ** 0.5), stored.shape[1]
    sides = (height, width) if window is None or max(height, width) <= window else (window, window)
    table = stored.t().reshape(1, heads, side, side)
    table = F.interpolate(table, [2 * s - 1 for s in sides], mode='bilinear', align_corners=False)[0]
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    v, u = v.flatten(), u.flatten()
    together = (v[:, None] // sides[0] == v // sides[0]) & (u[:, None] // sides[1] == u // sides[1])
    dy, dx = ((t[:, None] - t + s - 1).clamp(0, 2 * s - 2) for t, s in zip((v, u), sides, strict=True))
    query, key, value = attn.qkv(y).flatten(2).unflatten(1, (heads, 3, -1)).unbind(2)
    scores = torch.einsum('nhcq,nhck->nhqk', query, key) / 32**0.5 + table[:, dy, dx]
    weights = scores.masked_fill(~together, -torch.inf).softmax(-1)
    y = torch.einsum('nhqk,nhck->nhcq', weights, value).flatten(1, 2).unflatten(2, (height, width))
    x = shortcut_of(block, x) + attn.proj(y)
    return x + block.mlp.fc2(F.gelu(block.mlp.fc1(norm2d(block.norm2, x))))


def definition(network: CoAtNet, x: Tensor, window: int | None = None) -> list[Tensor]:
    """The network with plain layers and the matrix of all pairs."""
    stem = network.stem
    x = stem.conv2(F.gelu(stem.norm1(stem.conv1(x))))
    maps = []
    for stage in network.stages:
        for block in stage.blocks:
            x = conv_block(block, x) if isinstance(block, MBConv) else attention_block(block, x, window)
        maps.append(x)
    return maps


# One network meets sizes with as many tokens one after the other: 8x18 and 9x16, 14x10 and 10x14.
@pytest.mark.parametrize('stages', ['CCTT', 'CTTT'])
def test_every_size_is_the_definition_s(stages):
    network = build(stages=stages).eval()
    for size in [(128, 288), (144, 256), (224, 160), (160, 224), (150, 203), (33, 65), (129, 32)]:
        image = torch.randn(2, 3, *size, dtype=torch.double)
        with torch.no_grad():
            maps, expected = network(image), definition(network, image)
        torch.testing.assert_close(list(maps), expected)
        for m, stride in zip(maps, network.out_strides, strict=True):
            assert tuple(m.shape[2:]) == tuple(-(-side // stride) for side in size)


@pytest.mark.parametrize('norm_eval', [False, True])
@pytest.mark.parametrize('size', [(75, 130), (64, 144)])
def test_gradients_are_those_of_the_definition(size, norm_eval):
    network = build(norm_eval=norm_eval).train()
    image = torch.randn(2, 3, *size, dtype=torch.double, requires_grad=True)
    inputs = dict(network.named_parameters()) | {'image': image}
    results = []
    for maps in (network(image), definition(network, image)):
        loss = sum((m * torch.linspace(-1, 1, m[0].numel()).view_as(m[0])).mean() for m in maps)
        results.append(dict(zip(inputs, torch.autograd.grad(loss, inputs.values()), strict=True)))
    torch.testing.assert_close(*results)


def test_frozen_statistics_fold_while_training_goes_on():
    plain, fused = build(norm_eval=True).train(), build(norm_eval=True)
    fused.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 64, 96, dtype=torch.double)
    torch.testing.assert_close(fused.fuse().train()(image), plain(image))


@pytest.mark.parametrize('window', [3, 5, 9, 14])
def test_windows_see_themselves_alone(window):
    network = build(window_size=window).eval()
    image = torch.randn(2, 3, 130, 210, dtype=torch.double)  # 9x14 and 5x7 tokens
    with torch.no_grad():
        torch.testing.assert_close(list(network(image)), definition(network, image, window))
        whole = build()
        whole.load_state_dict(network.state_dict())
        assert (window == 14) == torch.allclose(whole.eval()(image)[-1], network(image)[-1])


def test_tables_at_another_size_are_resized():
    import timm

    network = create_backbone('coatnet_0', out_norm=False).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3)
    state = network.state_dict()
    theirs = timm.create_model('coatnet_0_224', img_size=(96, 160), num_classes=0, global_pool='').eval()
    for key, value in state.items():
        if 'relative_position' in key:
            side = int(len(value) ** 0.5)
            sizes = (11, 19) if side == 27 else (5, 9)
            table = F.interpolate(value.t().reshape(1, -1, side, side), sizes, mode='bilinear')
            state[key] = table[0].flatten(1).t()
    left_over = theirs.load_state_dict(state, strict=False)
    assert not left_over.unexpected_keys
    assert all(key.startswith('head') for key in left_over.missing_keys)
    image = torch.randn(1, 3, 96, 160)
    with torch.inference_mode():
        torch.testing.assert_close(network(image)[-1], theirs.forward_features(image), rtol=1e-4, atol=1e-4)


def test_convolutional_stages_follow_a_shift_by_one_stride():
    network = build(stages='CCCC', out_indices=(0, 1, 2)).eval()
    # Squeeze-and-excitation sees the whole map, whose mean stays only if nothing is lost at its border.
    image, shifted = torch.zeros(2, 1, 3, 256, 320, dtype=torch.double)
    pattern = torch.randn(3, 48, 80, dtype=torch.double)
    image[..., 96:144, 112:192] = pattern
    shifted[..., 112:160, 128:208] = pattern
    with torch.no_grad():
        for before, after, stride in zip(network(image), network(shifted), network.out_strides, strict=True):
            step, border = 16 // stride, 32 // stride
            moved = after[..., border + step : -border, border + step : -border]
            torch.testing.assert_close(moved, before[..., border : -border - step, border : -border - step])
            assert not torch.allclose(moved, before[..., border + step : -border, border + step : -border])


def test_features_change_smoothly_as_the_grid_grows():
    network = build().eval()
    smooth = torch.randn(1, 3, 5, 5, dtype=torch.double)
    features = []
    for side in range(176, 273, 16):  # 11 to 17 tokens a side; the table is made for 14
        with torch.inference_mode():
            third = network(F.interpolate(smooth, (224, side), mode='bicubic'))[2]
        features.append(F.interpolate(third[..., 1:-1, 1:-1], (12, 12), mode='bilinear'))
    steps = torch.tensor([(b - a).norm() / a.norm() for a, b in pairwise(features)])
    assert steps.max() < 0.1
    # Sixteen pixels are a smaller part of a larger image.
    slopes = steps * torch.arange(176, 272, 16)
    assert slopes.max() < 2 * slopes.min()


@pytest.mark.parametrize('grid', [(14, 14), (5, 9)])
def test_bias_without_tables_is_that_of_timm_s_rmlp_networks(grid):
    from timm.layers import RelPosMlp

    prefix = 'stages.2.blocks.1.attn.rel_pos.'
    state = Golden('coatnet_rmlp_1_rw_224').state_dict()
    state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    ours, theirs = RelativeMLP(12, 384), RelPosMlp(grid, num_heads=12, hidden_dim=384).eval()
    ours.load_state_dict(state)
    theirs.load_state_dict(state, strict=False)
    q = torch.randn(2, 12, *grid, 8)
    flat = q.flatten(2, 3)
    with torch.no_grad():
        expected = (flat @ flat.transpose(2, 3) * 8**-0.5 + theirs.get_bias()).softmax(-1) @ flat
        torch.testing.assert_close(table_attention(q, q, q, ours(*grid)).flatten(2, 3), expected)


def test_a_network_without_tables_learns_its_bias_at_every_size():
    network = build(table_size=None).train()
    assert not any('table' in key for key in network.state_dict())
    for size in ((75, 130), (64, 64)):
        network.zero_grad()
        sum(m.square().mean() for m in network(torch.randn(2, 3, *size, dtype=torch.double))).backward()
        biases = [parameter for name, parameter in network.named_parameters() if 'rel_pos' in name and '0.attn' in name]
        # Of the last layer's bias, one number for all keys, a softmax sees nothing.
        assert all(b.grad.any() for b in biases if b.ndim > 1)


def test_layers_of_the_learned_bias_may_be_replaced():
    network = build(table_size=None).float().eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        expected = network(image)
        for bias in (m for m in network.modules() if isinstance(m, RelativeMLP)):
            bias.mlp.fc1 = nn.Sequential(bias.mlp.fc1)
        assert all(torch.equal(a, b) for a, b in zip(network(image), expected, strict=True))


@pytest.mark.parametrize('stages', ['CCCC', 'CCCT', 'CCTT', 'CTTT'])
def test_the_layout_is_what_was_asked_for(stages):
    network = build(stages=stages)
    kinds = dict(C=MBConv, T=TransformerBlock)
    for kind, stage, depth in zip(stages, network.stages, TINY['depths'], strict=True):
        assert [type(block) for block in stage.blocks] == [kinds[kind]] * depth


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(stages='CTCT'), "stages='CTCT'.*one of CCCC, CCCT, CCTT, CTTT"),
        (dict(stages='cctt'), "stages='cctt'"),
        (dict(table_size=100), 'table_size=100.*multiple of 32'),
        (dict(window_size=0), 'window_size=0.*positive'),
        (dict(arch=dict(TINY, dims=(8, 8, 32, 48, 96))), 'attends in 48 channels.*heads of 32'),
    ],
    ids=str,
)
def test_options_it_does_not_have_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        CoAtNet(**dict(arch=TINY) | options)


def test_files_trained_at_another_size_load_with_their_table_size(tmp_path):
    network = build(table_size=384)
    state = network.state_dict()
    # As older versions of timm saved them.
    state['stages.2.blocks.0.attn.rel_pos.relative_position_index'] = torch.zeros(576, 576, dtype=torch.long)
    torch.save(state, tmp_path / 'timm.pth')
    again = build(table_size=384)
    report = load_pretrained(again, tmp_path / 'timm.pth')
    assert report.matched == report.total
    assert report.ignored == ('stages.2.blocks.0.attn.rel_pos.relative_position_index',)


def test_initialisation_is_timm_s():
    network = CoAtNet(arch=dict(depths=(2, 2, 2, 2), dims=(64, 64, 96, 128, 256)))
    state = network.state_dict()
    assert state['stages.0.blocks.1.conv2_kxk.weight'].std() == pytest.approx((2 / 9) ** 0.5, rel=0.1)
    assert state['stages.2.blocks.1.mlp.fc1.weight'].abs().max() == pytest.approx((6 / 640) ** 0.5, rel=0.01)
    assert state['stages.2.blocks.1.attn.rel_pos.relative_position_bias_table'].std() == pytest.approx(0.02, rel=0.1)
    assert all(value.eq(0).all() for key, value in state.items() if key.endswith('bias'))
