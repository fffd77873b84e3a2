"""BoTNet is the paper's network: outputs, parameters, any size, against the plain matrix of all pairs."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from goldens import Golden
from largest import Largest
from torch import Tensor, nn

from hybrid_backbones import create_backbone, create_classifier
from hybrid_backbones.backbones.botnet import Attention
from hybrid_backbones.checkpoints import load_pretrained

CASES = {
    'botnet50_gist_k1_224': 'botnet_50',
    'botnet50_gist_k1_192x320': 'botnet_50',
    'botnet50_s1_gist_192x256': 'botnet_s1_50',
}

# Reference page, section 8, and how much larger ResNet-101 and -152 are than -50; tables for 224x224.
PARAMETERS = {'botnet_50': 18_803_008, 'botnet_101': 37_795_136, 'botnet_152': 53_438_784}
TINY = dict(depths=(1, 1, 1, 2), width=8, heads=2, stride=2)


def from_golden(shared, tmp_path, case: str, **options) -> tuple[Golden, nn.Module]:
    golden = Golden(shared, case)
    torch.save(golden.state_dict(), tmp_path / 'gist.pth')
    given = golden.meta['input']
    size = given['H'], given['W']
    return golden, create_backbone(
        CASES[case], checkpoint=tmp_path / 'gist.pth', table_image_size=size, **options
    ).eval()


@pytest.mark.parametrize('way', ['plain', 'fused', 'with gradients'])
@pytest.mark.parametrize('case', CASES)
def test_outputs_are_those_of_the_gist(shared, tmp_path, case, way):
    golden, network = from_golden(shared, tmp_path, case)
    if way == 'fused':
        network.fuse()
    with torch.set_grad_enabled(way == 'with gradients'):
        outputs = network(golden.image())
    for stage, output in enumerate(outputs):
        golden.check(f'stage{stage}', output.detach())


@pytest.mark.parametrize('case', CASES)
def test_parameters_equal_those_of_the_gist_to_the_last_number(shared, tmp_path, case):
    golden, network = from_golden(shared, tmp_path, case)
    assert sum(p.numel() for p in network.parameters()) == golden.meta['num_parameters']
    report = load_pretrained(network, tmp_path / 'gist.pth')
    assert (report.matched, report.total) == (golden.meta['num_parameters'],) * 2
    assert not report.ignored
    assert not report.initial


@pytest.mark.parametrize('name', PARAMETERS)
def test_parameter_count_is_the_published_one(name):
    with torch.device('meta'):
        assert sum(p.numel() for p in create_backbone(name).parameters()) == PARAMETERS[name]
        # The paper's 20.8 M for BoTNet-50.
        classifier = sum(p.numel() for p in create_classifier(name).parameters())
    assert classifier == PARAMETERS[name] + 2048 * 1000 + 1000


def test_a_classification_file_of_the_translation_serves_classifier_and_trunk(shared, tmp_path):
    state = Golden(shared, 'botnet50_gist_k1_224').state_dict()
    state |= {'fc.weight': torch.randn(1000, 2048), 'fc.bias': torch.randn(1000)}
    torch.save({'state_dict': state}, tmp_path / 'gist.pth')
    classifier = create_classifier('botnet_50', checkpoint=tmp_path / 'gist.pth').eval()
    image = torch.randn(1, 3, 64, 64)
    trunk = create_backbone('botnet_50', checkpoint=tmp_path / 'gist.pth').eval()
    with torch.inference_mode():
        expected = trunk(image)[-1].mean((2, 3)) @ state['fc.weight'].t() + state['fc.bias']
        torch.testing.assert_close(classifier(image), expected)
    assert load_pretrained(trunk, tmp_path / 'gist.pth').ignored == ('fc.bias', 'fc.weight')


def test_blocks_start_as_their_shortcuts_and_init_weights_leaves_that():
    network = create_backbone('botnet_50', arch=TINY).eval()
    network.init_weights()
    norms = [p for name, p in network.named_parameters() if name.endswith('bn3.weight')]
    assert len(norms) == sum(TINY['depths'])
    assert not any(norm.any() for norm in norms)
    x = torch.randn(1, 128, 6, 6)
    with torch.inference_mode():
        first, second = network.layer4
        torch.testing.assert_close(first(x), first.downsample(x))
        assert torch.equal(second(first(x)), first(x))


def lively(arch: dict | None = None, **options) -> nn.Module:
    network = create_backbone('botnet_50', arch=arch or TINY, **options)
    for name, parameter in network.named_parameters():
        if name.endswith('bn3.weight'):
            nn.init.uniform_(parameter, 0.5, 1.5)
        elif '.rel_' in name:
            nn.init.normal_(parameter)
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean, std=0.1)
        nn.init.uniform_(norm.running_var, 0.8, 1.2)
        nn.init.normal_(norm.bias, std=0.1)
    return network.eval()


def all_pairs(attention: Attention, x: Tensor, table_size: tuple[int, int]) -> Tensor:
    """Attention as published, over a matrix of all pairs; tables as for a map of `table_size`. (N, C, H, W)."""
    n, dim, height, width = x.shape
    q, k, v = attention.qkv(x).view(n, 3, attention.num_heads, -1, height * width).transpose(-1, -2).unbind(1)
    q = q * q.shape[-1] ** -0.5
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    embeddings = 0
    for place, table, size in zip((y, x), (attention.rel_height, attention.rel_width), table_size, strict=True):
        table = F.interpolate(table.t()[None], 2 * size - 1, mode='linear')[0].t()
        place = place.flatten()
        embeddings = embeddings + table[place[None, :] - place[:, None] + size - 1]
    scores = q @ k.transpose(-1, -2) + torch.einsum('nhid,ijd->nhij', q, embeddings)
    return (scores.softmax(-1) @ v).transpose(-1, -2).reshape(n, dim, height, width)


def last_stage(network: nn.Module, x: Tensor) -> Tensor:
    """The gist's blocks, with a pool that leaves out what is outside an odd map."""
    for block in network.layer4:
        attention = block.conv2
        y = F.relu(block.bn1(block.conv1(x)))
        y = all_pairs(attention, y, y.shape[2:])
        if attention.stride == 2:
            pad = (0, y.shape[3] % 2, 0, y.shape[2] % 2)
            inside = F.pad(torch.ones_like(y), pad)
            y = F.avg_pool2d(F.pad(y, pad), 2) / F.avg_pool2d(inside, 2)
        y = block.bn3(block.conv3(F.relu(block.bn2(y))))
        x = F.relu(y + (x if block.downsample is None else block.downsample(x)))
    return x


# 8x18 tokens are a square number, 10x14 and 14x10 equally many; odd sizes; a size not of the network at all.
@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize('stride', [1, 2])
def test_any_sizes_in_turn_give_what_the_matrix_of_all_pairs_gives(stride, fused):
    network = lively(TINY | dict(stride=stride), table_image_size=(128, 160))
    for height, width in [(128, 288), (224, 160), (160, 224), (97, 131), (33, 32), (150, 203), (480, 464)]:
        image = torch.randn(1, 3, height, width)
        with torch.inference_mode():
            *_, third, _ = plain = network(image)
            expected = last_stage(network, third)
            actual = network.fuse()(image) if fused and height == 480 else plain
        assert [tuple(m.shape[2:]) for m in actual] == [(-(-height // s), -(-width // s)) for s in network.out_strides]
        torch.testing.assert_close(actual[-1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('size', 'table_size'), [((5, 4), (5, 4)), ((3, 7), (4, 4)), ((1, 1), (2, 3))])
def test_gradients_are_those_of_the_matrix_of_all_pairs(size, table_size):
    attention = Attention(12, stride=1, num_heads=2, table_size=table_size, window_size=None).double()
    x = torch.randn(2, 12, *size, dtype=torch.double, requires_grad=True)
    inputs = [x, *attention.parameters()]
    expected, actual = all_pairs(attention, x, size), attention(x)
    torch.testing.assert_close(actual, expected)
    grad = torch.randn_like(expected)
    torch.testing.assert_close(torch.autograd.grad(actual, inputs, grad), torch.autograd.grad(expected, inputs, grad))


@pytest.mark.parametrize('grad', [False, True])
def test_no_matrix_of_all_pairs_is_made(grad):
    attention = Attention(16, stride=1, num_heads=2, table_size=(14, 14), window_size=None)
    x = torch.randn(1, 16, 50, 84)
    with torch.set_grad_enabled(grad), Largest() as largest:
        out = attention(x)
        if grad:
            out.sum().backward()
    assert 0 < largest.numbers < 4200 * 4200 / 2


def test_a_window_over_the_whole_map_changes_nothing():
    attention = Attention(16, stride=2, num_heads=2, table_size=(4, 4), window_size=None).eval()
    x = torch.randn(2, 16, 7, 9)
    expected = attention(x)
    for window in (9, 14):
        attention.window_size = window
        assert torch.equal(attention(x), expected)


@pytest.mark.parametrize('grad', [False, True])
@pytest.mark.parametrize('size', [(8, 12), (7, 10), (3, 9), (5, 4)])
def test_windows_are_maps_of_their_own_without_their_padding(size, grad):
    attention = Attention(16, stride=1, num_heads=2, table_size=(3, 3), window_size=4)
    x = torch.randn(2, 16, *size)
    expected = torch.cat(
        [
            torch.cat([all_pairs(attention, crop, (4, 4)) for crop in rows.split(4, 3)], 3)  #
            for rows in x.split(4, 2)
        ],
        2,
    )
    with torch.set_grad_enabled(grad):
        actual = attention(x)
    torch.testing.assert_close(actual, expected)
    if grad:
        gradients = torch.autograd.grad(actual.square().sum(), list(attention.parameters()))
        definition = torch.autograd.grad(expected.square().sum(), list(attention.parameters()))
        torch.testing.assert_close(gradients, definition, rtol=1e-4, atol=1e-5)


def test_a_window_below_one_pixel_is_an_error():
    with pytest.raises(ValueError, match=r'window_size=0.*at least 1'):
        create_backbone('botnet_50', arch=TINY, window_size=0)


def test_a_shift_of_the_image_by_one_stride_shifts_the_convolutional_stages():
    network = lively(out_indices=(0, 1, 2))
    image = torch.randn(1, 3, 320, 336)
    with torch.inference_mode():
        here, there = network(image[..., :320]), network(image[..., 16:])
    for a, b, stride in zip(here, there, network.out_strides, strict=True):
        edge, step = 96 // stride, 16 // stride
        inside = slice(edge, -edge)
        torch.testing.assert_close(
            a[..., inside, edge + step : -edge], b[..., inside, edge : -edge - step], rtol=1e-4, atol=1e-5
        )


def test_features_change_smoothly_as_the_grid_grows():
    network = lively(TINY | dict(stride=1), table_image_size=(224, 224))
    smooth = torch.randn(1, 3, 5, 5)
    features = []
    for side in range(176, 273, 16):  # 11 to 17 tokens a side; the tables are made for 14
        with torch.inference_mode():
            last = network(F.interpolate(smooth, (224, side), mode='bicubic'))[-1]
        features.append(F.interpolate(last[..., 1:-1, 1:-1], (14, 14), mode='bilinear'))
    steps = torch.tensor([(b - a).norm() / a.norm() for a, b in pairwise(features)])
    assert steps.max() < 0.1
    assert steps.max() < 2 * steps.min()
