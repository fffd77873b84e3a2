"""HorNet is the authors' network: outputs, sizes, gradients; its global filters at any size."""

import pytest
import torch
import torch.nn.functional as F
from goldens import Golden
from torch import Tensor

from hybrid_backbones import create_backbone, create_classifier
from hybrid_backbones.backbones.hornet import Block, resize_filter

CASES = {
    'hornet_tiny_7x7_224x224': 'hornet_t',
    'hornet_tiny_7x7_160x224': 'hornet_t',
    'hornet_small_7x7_224x224': 'hornet_s',
    'hornet_tiny_gf_224x224': 'hornet_t_gf',
    'hornet_tiny_gf_160x256': 'hornet_t_gf',
}

# Reference page, section 12: millions of parameters of the classifier.
PARAMETERS = {
    'hornet_t': 22.410,
    'hornet_s': 49.528,
    'hornet_b': 87.257,
    'hornet_l': 194.543,
    'hornet_t_gf': 22.992,
    'hornet_s_gf': 50.402,
    'hornet_b_gf': 88.421,
    'hornet_l_gf': 196.290,
}
SMALL = dict(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), orders=(2, 3, 3, 4), gf=(2, 3))


def lively(module: torch.nn.Module) -> torch.nn.Module:
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return module


@pytest.mark.parametrize('case', CASES)
def test_outputs_are_those_of_the_official_code(tmp_path, case):
    golden = Golden(case)
    torch.save({'model': golden.state_dict()}, tmp_path / 'official.pth')
    network = create_classifier(CASES[case], checkpoint=tmp_path / 'official.pth').eval()
    with torch.inference_mode():
        maps, logits = network.backbone(golden.image()), network(golden.image())
    for stage, output in enumerate(maps):
        golden.check(f'stage{stage}', output)
    golden.check_logits(logits)


@pytest.mark.parametrize('case', ['hornet_tiny_7x7_160x224', 'hornet_tiny_gf_160x256'])
@pytest.mark.parametrize('way', ['fused', 'with gradients'])
def test_every_way_of_running_gives_the_official_outputs(tmp_path, case, way):
    golden = Golden(case)
    torch.save(golden.state_dict(), tmp_path / 'official.pth')
    network = create_backbone(CASES[case], checkpoint=tmp_path / 'official.pth', out_norm=False).eval()
    if way == 'fused':
        network.fuse()
        assert not any('gamma' in name for name, _ in network.named_parameters())
    with torch.set_grad_enabled(way == 'with gradients'):
        outputs = network(golden.image())
    for stage, output in enumerate(outputs):
        golden.check(f'stage{stage}', output.detach())


@pytest.mark.parametrize('case', ['hornet_tiny_7x7_160x224', 'hornet_small_7x7_224x224', 'hornet_tiny_gf_160x256'])
def test_parameters_equal_the_official_state_dict_to_the_last_number(case):
    official = {key: torch.Size(shape) for key, shape, _ in Golden(case).meta['state_dict']}
    with torch.device('meta'):
        state = create_classifier(CASES[case]).state_dict()
    assert {key: value.shape for key, value in state.items()} == official


@pytest.mark.parametrize('name', PARAMETERS)
def test_parameter_count_is_the_published_one(name):
    with torch.device('meta'):
        count = sum(p.numel() for p in create_classifier(name).parameters())
    assert round(count / 1e6, 3) == PARAMETERS[name]


@pytest.mark.parametrize('nest', ['model', 'module', 'state_dict', None])
def test_published_files_load_as_they_are(tmp_path, nest):
    state = lively(create_classifier('hornet_t_gf', arch=SMALL)).state_dict()
    if nest == 'state_dict':
        state = {f'module.{key}': value for key, value in state.items()}
    torch.save({nest: state} if nest else state, tmp_path / 'official.pth')
    trunk = create_backbone('hornet_t_gf', arch=SMALL, checkpoint=tmp_path / 'official.pth').state_dict()
    prefix = 'module.' if nest == 'state_dict' else ''
    loaded = {key: value for key, value in trunk.items() if not key.startswith('out_norms')}
    assert len(loaded) == len(state) - 4  # norm and head
    assert all(torch.equal(value, state[prefix + key]) for key, value in loaded.items())


@pytest.mark.parametrize('create', [create_backbone, create_classifier])
def test_filters_of_a_file_are_resized_to_those_of_the_network(tmp_path, create):
    state = lively(create_classifier('hornet_t_gf', arch=SMALL)).state_dict()
    torch.save(state, tmp_path / 'official.pth')
    network = create('hornet_t_gf', arch=SMALL, filter_image_size=384, checkpoint=tmp_path / 'official.pth')
    loaded = network.state_dict()
    sizes = {key: value.shape[1:] for key, value in loaded.items() if 'complex_weight' in key}
    assert set(sizes.values()) == {(24, 13, 2), (12, 7, 2)}
    for key in sizes:
        planes = F.interpolate(state[key].movedim(-1, 0), sizes[key][:2], mode='bilinear', align_corners=True)
        torch.testing.assert_close(loaded[key], planes.movedim(0, -1))
        assert torch.equal(loaded[key][:, 0, 0], state[key][:, 0, 0])


def test_layer_scale_starts_as_published_and_survives_init_weights():
    network = create_backbone('hornet_t')
    network.init_weights()
    scales = [p for name, p in network.named_parameters() if 'gamma' in name]
    assert len(scales) == 2 * 25
    assert all(torch.all(scale == 1e-6) for scale in scales)


@pytest.mark.parametrize(('height', 'width'), [(150, 203), (203, 150), (32, 95)])
@pytest.mark.parametrize('name', ['hornet_t', 'hornet_t_gf'])
def test_odd_sizes_are_floored(name, height, width):
    network = create_backbone(name, arch=SMALL).eval()
    with torch.inference_mode():
        maps = network(torch.randn(1, 3, height, width))
    assert [tuple(m.shape[2:]) for m in maps] == [(height // s, width // s) for s in (4, 8, 16, 32)]


def definition(block: Block, x: Tensor) -> Tensor:
    """The block as published, on (N, C, H, W), with nothing but torch's own layers and autograd."""

    def norm(layer, x):
        return F.layer_norm(x.movedim(1, -1), layer.normalized_shape, layer.weight, layer.bias, 1e-6).movedim(-1, 1)

    def global_local_filter(layer, x):
        local, wide = norm(layer.pre_norm, x).chunk(2, 1)
        local = layer.dw(local)
        weight = resize_filter(layer.complex_weight, wide.shape[2], wide.shape[3] // 2 + 1)
        wide = fourier(wide, torch.view_as_complex(weight.contiguous()))
        mixed = torch.cat([torch.cat([local[:, i : i + 1], wide[:, i : i + 1]], 1) for i in range(local.shape[1])], 1)
        return norm(layer.post_norm, mixed)

    conv = block.gnconv
    parts = conv.proj_in(norm(block.norm1, x)).split([conv.dims[0], *conv.dims], 1)
    y, rest = parts[0], torch.cat(parts[1:], 1)
    gates = global_local_filter(conv.dwconv, rest) if hasattr(conv.dwconv, 'dw') else conv.dwconv(rest)
    gates = (gates / 3).split(conv.dims, 1)
    y = y * gates[0]
    for pw, gate in zip(conv.pws, gates[1:], strict=True):
        y = pw(y) * gate
    x = x + block.gamma1[:, None, None] * conv.proj_out(y)
    y = block.pwconv2(F.gelu(block.pwconv1(norm(block.norm2, x).movedim(1, -1)))).movedim(-1, 1)
    return x + block.gamma2[:, None, None] * y


def fourier(x: Tensor, weight: Tensor) -> Tensor:
    """Circular filtering by the definition: discrete Fourier transforms as matrices, half a spectrum completed."""
    height, width = x.shape[2:]
    rows, columns = (
        torch.exp(-2j * torch.pi * torch.outer(n, n).double() / len(n)) for n in map(torch.arange, x.shape[2:])
    )
    i, j = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    # Of a real signal, opposite frequencies are conjugates: the left half gives the right one. Columns that are their
    # own opposites hold both of a pair; what differs between them is not real, and dropped.
    half = weight[:, -i % height, -j % width % weight.shape[2]].conj()
    left = weight[:, i, j % weight.shape[2]]
    full = torch.where(2 * j > width, half, torch.where(j == -j % width, (left + half) / 2, left))
    spectrum = rows @ x.to(torch.cdouble) @ columns
    return (rows.conj() @ (spectrum * full) @ columns.conj()).real / (height * width)


@pytest.mark.parametrize('size', [(9, 7), (14, 14), (8, 10), (1, 1), (1, 6)])
@pytest.mark.parametrize('filter_shape', [None, (14, 8)], ids=['7x7', 'gf'])
def test_outputs_and_gradients_are_those_of_the_definition(filter_shape, size):
    block = lively(Block(16, 3, filter_shape, drop_path=0.0, layer_scale_init=1.0).double())
    x = torch.randn(2, 16, *size, dtype=torch.double, requires_grad=True)
    inputs = [x, *block.parameters()]
    expected = definition(block, x)
    actual = block(x.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(actual, expected)
    grad = torch.randn_like(expected)
    torch.testing.assert_close(torch.autograd.grad(actual, inputs, grad), torch.autograd.grad(expected, inputs, grad))


def test_a_filter_at_its_own_size_is_left_alone():
    weight = torch.randn(4, 14, 8, 2)
    assert resize_filter(weight, 14, 8) is weight


def test_filters_work_in_float32_whatever_the_weights_are():
    network = lively(create_backbone('hornet_t_gf', arch=SMALL)).eval()
    image = torch.randn(1, 3, 150, 203)
    with torch.inference_mode():
        expected = network(image)
        actual = network.bfloat16()(image.bfloat16())
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == torch.bfloat16
        assert (a.float() - b).norm() < 0.05 * b.norm()


@pytest.mark.parametrize('grad', [True, False])
def test_large_maps_take_the_same_values(grad):
    block = lively(Block(8, 2, None, drop_path=0.0, layer_scale_init=1.0)).eval()
    x = torch.randn(1, 8, 224, 225)
    with torch.set_grad_enabled(grad):
        expected = definition(block, x)
        actual = block(x.movedim(1, -1).contiguous()).movedim(-1, 1)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
