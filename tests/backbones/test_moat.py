"""MOAT is the authors' network: outputs, sizes, windows, gradients, and their variables in either layout."""

import math

import pytest
import torch
import torch.nn.functional as F
from goldens import Golden
from torch import Tensor, nn

from hybrid_backbones import create_backbone, create_classifier
from hybrid_backbones.backbones.moat import MBConv, MOATBlock, Stem
from hybrid_backbones.checkpoints import CheckpointError, load_pretrained

CASES = {
    'moat_0_224x224': dict(pool_size=2),
    'moat_0_global_192x256': dict(pool_size=3),
    'moat_0_window_224x448': dict(pool_size=3, window_size=(14, 7)),
}
TINY = dict(depths=(1, 1, 2, 1), dims=(8, 8, 16, 32, 64))

# The authors' own test: parameters of the classifiers, with tables of relative positions and without.
PARAMETERS = {
    'moat_0': (27_846_892, 27_777_544),
    'moat_1': (41_598_448, 41_467_864),
    'moat_2': (73_422_408, 73_248_296),
    'moat_3': (189_958_040, 189_536_280),
    'moat_4': (483_214_184, 482_539_368),
    'tiny_moat_0': (3_355_348, 3_332_232),
    'tiny_moat_1': (5_122_895, 5_094_000),
    'tiny_moat_2': (9_772_741, 9_732_288),
    'tiny_moat_3': (19_534_390, 19_476_600),
}


def lively(network: nn.Module) -> nn.Module:
    """Weights and statistics under which every layer matters."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.3)
    for name, buffer in network.named_buffers():
        if 'running' in name:
            nn.init.uniform_(buffer, 0.5, 1.5)
    return network


@pytest.mark.parametrize('case', CASES)
def test_outputs_and_logits_are_those_of_the_official_code(tmp_path, case):
    golden = Golden(case)
    torch.save(golden.state_dict(), tmp_path / 'variables.pth')
    network = create_classifier('moat_0', checkpoint=tmp_path / 'variables.pth', **CASES[case]).eval()
    with torch.inference_mode():
        outputs = network.backbone(golden.image())
        logits = network(golden.image())
    for stage, output in enumerate(outputs):
        golden.check(f'stage{stage}', output)
    golden.check_logits(logits)


@pytest.mark.parametrize('way', ['fused', 'with gradients'])
def test_every_way_of_running_gives_the_official_outputs(tmp_path, way):
    golden = Golden('moat_0_global_192x256')
    torch.save(golden.state_dict(), tmp_path / 'variables.pth')
    network = create_backbone('moat_0', checkpoint=tmp_path / 'variables.pth', out_norm=False).eval()
    if way == 'fused':
        network.fuse()
        assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    with torch.set_grad_enabled(way == 'with gradients'):
        outputs = network(golden.image())
    for stage, output in enumerate(outputs):
        golden.check(f'stage{stage}', output.detach())


@pytest.mark.parametrize('name', PARAMETERS)
def test_parameter_counts_are_the_authors(name):
    with torch.device('meta'):
        networks = create_classifier(name), create_classifier(name, position_tables=False)
    assert tuple(sum(p.numel() for p in network.parameters()) for network in networks) == PARAMETERS[name]


def in_tensorflow_s_layout(name: str, value: Tensor) -> Tensor:
    """As section 1 of the goldens' README says."""
    if value.ndim == 4:
        return value.permute(2, 3, 0, 1) if 'depthwise' in name else value.permute(2, 3, 1, 0)
    if '/attention/' in name and name.endswith('/o/weight'):
        return value.t().unflatten(0, (-1, 32))
    if '/attention/' in name and not name.endswith(('/o/bias', 'embedding')):
        return value.t().unflatten(-1, (-1, 32))
    return value


def test_variables_in_tensorflow_s_layout_load_with_their_averages(tmp_path):
    variables = Golden('moat_0_224x224').state_dict()
    torch.save(variables, tmp_path / 'torch.pth')
    raw = {}
    for name, value in variables.items():
        value = in_tensorflow_s_layout(name, value)
        if 'moving_' in name:  # has no average
            raw[f'{name}:0'] = value
        else:
            raw[f'{name}/ExponentialMovingAverage'], raw[name] = value, torch.zeros_like(value)
    torch.save(raw | {'global_step': torch.tensor(1)}, tmp_path / 'tensorflow.pth')
    a, b = (create_classifier('moat_0', checkpoint=tmp_path / file) for file in ('torch.pth', 'tensorflow.pth'))
    # Every number of the file is in the network: none left at its initial value, moving statistics included.
    assert sum(value.double().sum() for key, value in a.state_dict().items() if 'tracked' not in key) == pytest.approx(
        sum(value.double().sum() for value in variables.values())
    )
    assert all(torch.equal(value, b.state_dict()[key]) for key, value in a.state_dict().items())
    report = load_pretrained(create_backbone('moat_0', out_indices=(0, 1, 2)), tmp_path / 'tensorflow.pth')
    assert report.matched == report.total - sum(2 * dim for dim in (96, 192, 384))  # the output norms
    with pytest.raises(CheckpointError, match='of another shape'):
        create_backbone('tiny_moat_0', checkpoint=tmp_path / 'tensorflow.pth')


def test_files_of_networks_without_relative_positions_load(tmp_path):
    variables = Golden('moat_0_224x224').state_dict()
    torch.save({k: v for k, v in variables.items() if 'relative' not in k}, tmp_path / 'no_pe.pth')
    network = create_backbone('moat_0', checkpoint=tmp_path / 'no_pe.pth', position_tables=False, out_norm=False)
    torch.save({k: v * ('relative' not in k) for k, v in variables.items()}, tmp_path / 'zeros.pth')
    zeros = create_backbone('moat_0', checkpoint=tmp_path / 'zeros.pth', out_norm=False)
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(image), zeros.eval()(image), rtol=1e-4, atol=1e-4)
    with pytest.raises(CheckpointError, match='relative_position_embedding'):
        create_backbone('moat_0', checkpoint=tmp_path / 'no_pe.pth')


def same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """`x` in zeros as TensorFlow's SAME pads it: what is left over goes behind."""
    sides = []
    for side in reversed(x.shape[2:]):
        total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
        sides += [total // 2, total - total // 2]
    return F.pad(x, sides)


def norm(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
    mean, var = layer.running_mean, layer.running_var
    if layer.training:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    mean, var, weight, bias = (t[:, None, None] for t in (mean, var, layer.weight, layer.bias))
    return (x - mean) / (var + 1e-3).sqrt() * weight + bias


def inverted_bottleneck(block: MBConv, x: Tensor) -> Tensor:
    """The block as published, on (N, C, H, W), with nothing but torch's own functions."""
    shortcut = x
    if block.stride == 2:
        k, c = block.pool_size, x.shape[1]
        ones = x.new_ones(c, 1, k, k)
        shortcut = F.conv2d(same(x, k, 2), ones, stride=2, groups=c)
        shortcut = shortcut / F.conv2d(same(torch.ones_like(x), k, 2), ones, stride=2, groups=c)
    if block.shortcut_conv is not None:
        shortcut = block.shortcut_conv(shortcut)
    y = F.gelu(norm(block.expand_norm, block.expand_conv(norm(block.pre_norm, x))))
    y = F.conv2d(same(y, 3, block.stride), block.depthwise_conv.weight, stride=block.stride, groups=y.shape[1])
    y = F.gelu(norm(block.depthwise_norm, y))
    if not isinstance(block.se, nn.Identity):
        y = y * torch.sigmoid(block.se.fc2(F.silu(block.se.fc1(y.mean((2, 3), keepdim=True)))))
    return shortcut + block.shrink_conv(y)


def attention(block: MOATBlock, x: Tensor, table: Tensor) -> Tensor:
    """Attention among all of (N, C, H, W), whose table is that of a map at least as large."""
    attn, (n, c, height, width) = block.attention, x.shape
    tokens = F.layer_norm(x.flatten(2).transpose(1, 2), (c,), block.attention_norm.weight, block.attention_norm.bias)
    q, k, v = (layer(tokens).view(n, -1, c // 32, 32).transpose(1, 2) for layer in (attn.q, attn.k, attn.v))
    places = torch.arange(height * width)
    rows, columns = places // width, places % width
    dy = rows - rows[:, None] + table.shape[1] // 2
    dx = columns - columns[:, None] + table.shape[2] // 2
    weights = (q * 32**-0.5 @ k.transpose(2, 3) + table[:, dy, dx]).softmax(-1)
    return attn.o((weights @ v).transpose(1, 2).flatten(2)).transpose(1, 2).view_as(x)


def resized(block: MOATBlock, height: int, width: int) -> Tensor:
    table, size = block.attention.relative_position_embedding, (2 * height - 1, 2 * width - 1)
    return F.interpolate(table[None], size, mode='bilinear', align_corners=False, antialias=False)[0]


def definition(block: MOATBlock, x: Tensor) -> Tensor:
    x = inverted_bottleneck(block, x)
    window, (height, width) = block.attention.window_size, x.shape[2:]
    if window is None or max(height, width) <= window:
        return x + attention(block, x, resized(block, height, width))
    out = torch.empty_like(x)
    for top in range(0, height, window):
        for left in range(0, width, window):
            part = (..., slice(top, top + window), slice(left, left + window))
            out[part] = attention(block, x[part], resized(block, window, window))
    return x + out


def run(block: MBConv, x: Tensor) -> Tensor:
    return block(x.permute(0, 2, 3, 1).contiguous()).permute(0, 3, 1, 2)


def moat_block(stride: int = 1, pool_size: int = 3, window_size: int | None = None, dim: int = 64) -> MOATBlock:
    return lively(MOATBlock(dim, 64, stride, pool_size, 0.0, 4, window_size, True)).double().eval()


SIZES = [(7, 7), (8, 8), (9, 4), (6, 11), (1, 5), (2, 1)]


@pytest.mark.parametrize('pool_size', [2, 3])
@pytest.mark.parametrize(('dim', 'stride'), [(8, 2), (16, 2), (16, 1)])
@pytest.mark.parametrize('training', [False, True])
def test_inverted_bottleneck_pads_as_tensorflow_at_every_parity(dim, stride, pool_size, training):
    block = lively(MBConv(dim, 16, stride, pool_size, 0.0)).double().train(training)
    for size in SIZES:
        x = torch.randn(2, dim, *size, dtype=torch.double)
        expected = inverted_bottleneck(block, x)
        assert expected.shape[2:] == tuple(-(-side // stride) for side in size)
        torch.testing.assert_close(run(block, x), expected)
        with torch.no_grad():
            torch.testing.assert_close(run(block, x.clone()), expected)


@pytest.mark.parametrize('size', SIZES)
def test_stem_pads_as_tensorflow_at_every_parity(size):
    stem = lively(Stem(8)).double().eval()
    x = torch.randn(1, 3, *size, dtype=torch.double)
    y = F.conv2d(same(x, 3, 2), stem.conv_0.weight, stem.conv_0.bias, 2)
    expected = F.conv2d(F.gelu(norm(stem.norm_0, y)), stem.conv_1.weight, stem.conv_1.bias, padding=1)
    torch.testing.assert_close(stem(x), expected)


@pytest.mark.parametrize('window_size', [None, 3, 4])
def test_equal_token_counts_one_after_another_are_not_confused(window_size):
    block = moat_block(window_size=window_size)
    for size in [(4, 9), (6, 6), (9, 4), (3, 12), (4, 9), (2, 2), (4, 4), (1, 1)]:
        x = torch.randn(2, 64, *size, dtype=torch.double)
        with torch.inference_mode():
            torch.testing.assert_close(run(block, x.clone()), definition(block, x))


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize(('stride', 'window_size', 'size'), [(1, None, (5, 7)), (2, None, (9, 6)), (1, 3, (7, 5))])
def test_gradients_are_those_of_the_definition(stride, window_size, size, training):
    block = moat_block(stride, window_size=window_size, dim=32).train(training)
    x = torch.randn(2, 32, *size, dtype=torch.double, requires_grad=True)
    inputs = [x, *block.parameters()]
    expected, actual = definition(block, x), run(block, x)
    torch.testing.assert_close(actual, expected)
    grad = torch.randn_like(expected)
    torch.testing.assert_close(torch.autograd.grad(actual, inputs, grad), torch.autograd.grad(expected, inputs, grad))


def test_windows_that_cover_the_map_are_no_windows():
    plain = lively(create_backbone('moat_0', arch=TINY)).eval()
    windowed = create_backbone('moat_0', arch=TINY, window_size=[14, 7]).eval()
    windowed.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 224, 200)
    with torch.inference_mode():
        assert all(torch.equal(a, b) for a, b in zip(windowed(image), plain(image), strict=True))
        image = torch.randn(1, 3, 64, 256)
        same_maps = [torch.equal(a, b) for a, b in zip(windowed(image), plain(image), strict=True)]
    assert same_maps == [True, True, False, False]


def test_windows_do_not_see_each_other():
    block = moat_block(window_size=4)
    x = torch.randn(1, 64, 8, 11, dtype=torch.double)
    with torch.inference_mode():
        alone = block.attention(x[:, :, 4:8, 4:8].permute(0, 2, 3, 1))
        torch.testing.assert_close(block.attention(x.permute(0, 2, 3, 1))[:, 4:8, 4:8], alone)


def test_odd_sizes_are_rounded_up():
    network = create_backbone('moat_0', arch=TINY).eval()
    with torch.inference_mode():
        maps = network(torch.randn(1, 3, 150, 203))
    assert [tuple(m.shape[2:]) for m in maps] == [(38, 51), (19, 26), (10, 13), (5, 7)]


def test_initialisation_and_constants_are_the_authors():
    torch.manual_seed(0)
    network = create_backbone('tiny_moat_0', drop_path_rate=0.28)
    network.init_weights()
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1 and parameter.numel() > 1000:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.15), name
        elif parameter.ndim == 1:
            assert torch.all(parameter == (1 if name.endswith('weight') else 0)), name
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(module.eps, module.momentum) for module in norms} == {(1e-3, 0.01)}
    # 14 blocks: the rate would reach its full value after the last.
    rates = [block.drop_path.rate for stage in network.stages for block in stage]
    assert rates == pytest.approx([0.02 * i for i in range(14)])


@pytest.mark.parametrize('share', [0.01, 0.1])
def test_bn_momentum_is_the_share_of_a_batch_in_the_statistics(share):
    torch.manual_seed(0)
    network = create_backbone('tiny_moat_0', bn_momentum=share).train()
    network(torch.randn(2, 3, 64, 64))
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            # Variances start at 1; those of a batch are near 0 with such small weights.
            assert module.running_var.min().item() == pytest.approx(1 - share, abs=share / 4), name


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(pool_size=4), 'pool_size=4 of MOAT: expected 2 or 3'),
        (dict(window_size=(14,)), r'window_size=\(14,\) of MOAT'),
        (dict(window_size=(14, 0)), r'window_size=\(14, 0\) of MOAT'),
        (dict(bn_momentum=0), 'bn_momentum=0 of MOAT: expected more than 0'),
    ],
)
def test_options_outside_the_architecture_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        create_backbone('tiny_moat_0', **options)
