"""Conv2Former is the authors' network: outputs, sizes, gradients."""

import pytest
import torch
import torch.nn.functional as F
from goldens import Golden
from torch import Tensor

from hybrid_backbones import create_backbone, create_classifier
from hybrid_backbones.backbones.conv2former import Block

CASES = {
    'conv2former_n_224x224': 'conv2former_n',
    'conv2former_n_160x224': 'conv2former_n',
    'conv2former_n_odd_150x203': 'conv2former_n',
    'conv2former_t_224x224': 'conv2former_t',
    'conv2former_t_160x224': 'conv2former_t',
    'conv2former_b_22k_128x160': 'conv2former_b_k7',
}

# Reference page, section 1: millions of parameters of the trunk.
PARAMETERS = {
    'conv2former_n': 13.053,
    'conv2former_t': 24.675,
    'conv2former_s': 48.011,
    'conv2former_b': 87.761,
    'conv2former_b_k7': 86.517,
    'conv2former_l': 196.298,
}


@pytest.mark.parametrize('case', CASES)
def test_outputs_are_those_of_the_official_code(tmp_path, case):
    golden = Golden(case)
    torch.save({'model': golden.state_dict()}, tmp_path / 'official.pth')
    network = create_backbone(CASES[case], checkpoint=tmp_path / 'official.pth', out_norm=False).eval()
    with torch.inference_mode():
        outputs = network(golden.image())
    for stage, output in enumerate(outputs):
        golden.check(f'stage{stage}', output)


def test_logits_are_those_of_the_official_code(tmp_path):
    golden = Golden('conv2former_n_160x224')
    torch.save({'model': golden.state_dict()}, tmp_path / 'official.pth')
    network = create_classifier('conv2former_n', checkpoint=tmp_path / 'official.pth').eval()
    with torch.inference_mode():
        golden.check_logits(network(golden.image()))


@pytest.mark.parametrize('way', ['fused', 'with gradients'])
def test_every_way_of_running_gives_the_official_outputs(tmp_path, way):
    golden = Golden('conv2former_n_160x224')
    torch.save(golden.state_dict(), tmp_path / 'official.pth')
    network = create_backbone('conv2former_n', checkpoint=tmp_path / 'official.pth', out_norm=False).eval()
    if way == 'fused':
        network.fuse()
    with torch.set_grad_enabled(way == 'with gradients'):
        outputs = network(golden.image())
    for stage, output in enumerate(outputs):
        golden.check(f'stage{stage}', output.detach())


@pytest.mark.parametrize('case', ['conv2former_n_224x224', 'conv2former_t_224x224', 'conv2former_b_22k_128x160'])
def test_parameters_equal_the_official_state_dict_to_the_last_number(case):
    official = {
        key: torch.Size(shape)
        for key, shape, rule in Golden(case).meta['state_dict']
        if rule != 'keep' and not key.startswith(('head.', 'pred.'))
    }
    with torch.device('meta'):
        trunk = create_backbone(CASES[case], out_norm=False).state_dict()
    assert {k: v.shape for k, v in trunk.items() if not k.endswith('num_batches_tracked')} == official


@pytest.mark.parametrize('name', PARAMETERS)
def test_parameter_count_is_the_published_one(name):
    with torch.device('meta'):
        count = sum(p.numel() for p in create_backbone(name, out_norm=False).parameters())
    assert round(count / 1e6, 3) == PARAMETERS[name]


def test_layer_scale_starts_as_published_and_survives_init_weights():
    network = create_backbone('conv2former_n')
    network.init_weights()
    scales = [p for name, p in network.named_parameters() if 'layer_scale' in name]
    assert len(scales) == 2 * 14
    assert all(torch.all(scale == 1e-6) for scale in scales)


@pytest.mark.parametrize(('height', 'width'), [(150, 203), (203, 150), (31, 95), (64, 64)])
def test_odd_sizes_are_floored(height, width):
    network = create_backbone('conv2former_n').eval()
    with torch.inference_mode():
        maps = network(torch.randn(1, 3, height, width))
    sizes = [((height + 1) // 2 // 2**i, (width + 1) // 2 // 2**i) for i in range(1, 5)]
    assert [tuple(m.shape[2:]) for m in maps] == sizes


def definition(block: Block, x: Tensor) -> Tensor:
    """The block as published, on (N, C, H, W), with nothing but torch's own layers and autograd."""

    def norm(layer, x):
        return F.layer_norm(x.permute(0, 2, 3, 1), layer.normalized_shape, layer.weight, layer.bias, 1e-6).permute(
            0, 3, 1, 2
        )

    attn, mlp = block.attn, block.mlp
    n = norm(attn.norm, x)
    x = x + block.layer_scale_1[:, None, None] * attn.proj(attn.att(n) * attn.v(n))
    y = F.gelu(mlp.fc1(norm(mlp.norm, x)))
    return x + block.layer_scale_2[:, None, None] * mlp.fc2(y + F.gelu(mlp.pos(y)))


@pytest.mark.parametrize('size', [(9, 7), (1, 1), (1, 6)])
def test_gradients_are_those_of_the_definition(size):
    block = Block(16, kernel_size=7, drop_path=0.0, layer_scale_init=1.0).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 16, *size, dtype=torch.double, requires_grad=True)
    inputs = [x, *block.parameters()]
    expected = definition(block, x)
    actual = block(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(actual, expected)
    grad = torch.randn_like(expected)
    torch.testing.assert_close(torch.autograd.grad(actual, inputs, grad), torch.autograd.grad(expected, inputs, grad))


@pytest.mark.parametrize('grad', [True, False])
def test_large_maps_take_the_same_values(grad):
    block = Block(8, kernel_size=9, drop_path=0.0, layer_scale_init=1.0).eval()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(1, 8, 224, 225)
    with torch.set_grad_enabled(grad):
        expected = definition(block, x)
        actual = block(x.permute(0, 2, 3, 1).contiguous()).permute(0, 3, 1, 2)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    block = Block(8, kernel_size=3, drop_path=0.5, layer_scale_init=1.0).train()
    x = torch.randn(1, 5, 5, 8).expand(400, -1, -1, -1)
    with torch.no_grad():
        branch = block(x) - x
    kinds = torch.unique(branch.flatten(1).round(decimals=4), dim=0)
    assert 2 <= len(kinds) <= 4  # either branch on or off
    assert 0.15 < (branch.flatten(1).abs().sum(1) == 0).float().mean() < 0.35
