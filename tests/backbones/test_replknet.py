"""RepLKNet is the authors' network: outputs and logits of every form, files of both, sizes, gradients."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from goldens import Golden
from torch import Tensor, nn

from hybrid_backbones import create_backbone, create_classifier
from hybrid_backbones.backbones.replknet import ConvFFN, RepLKBlock
from hybrid_backbones.checkpoints import CheckpointError, load_pretrained

# Goldens of the training form, and of the authors' merged form of the same weights.
SIZES = ['128x160', '224x224']
SMALL = dict(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), kernel_sizes=(31, 15, 7, 5), small_kernel=5, dw_ratio=1)
WIDE = SMALL | dict(small_kernel=None, dw_ratio=1.5)

# Reference page, section 12: parameters of the classifiers in millions, and of their merged forms.
PARAMETERS = {
    'replknet_31b': (79.864, 79.527),
    'replknet_31l': (172.671, 172.166),
    'replknet_xl': (335.436,),
}


def lively(network: nn.Module) -> nn.Module:
    """Weights and statistics under which every layer matters."""
    for parameter in network.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, 0.5, 0.3)
        else:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    for name, buffer in network.named_buffers():
        if 'running' in name:
            nn.init.uniform_(buffer, 0.5, 1.5)
    return network


def check(golden: Golden, network: nn.Module) -> None:
    """Every output of a classifier that a golden has."""
    outputs, large = {}, []
    trunk = network.backbone
    first = trunk.stages[0].blocks[0]
    hooks = [first.large_kernel.register_forward_hook(lambda *args: large.append(args[-1].permute(0, 3, 1, 2).clone()))]
    # In inference, the next block overwrites what a block gives.
    for i, block in enumerate(trunk.stages[0].blocks[:2]):
        name = f'stage0_block{i}'
        hooks.append(
            block.register_forward_hook(
                lambda *args, name=name: outputs.update({name: args[-1].permute(0, 3, 1, 2).detach().clone()})
            )
        )
    maps = trunk(golden.image())
    for hook in hooks:
        hook.remove()
    golden.check('stage0_block0_large_kernel', large[0].detach())
    for name, output in outputs.items():
        golden.check(name, output)
    for i, output in enumerate(maps):
        golden.check(f'stage{i}', output.detach())
    golden.check_logits(network(golden.image()).detach())


@pytest.mark.parametrize('size', SIZES)
def test_outputs_and_logits_are_those_of_the_official_code(tmp_path, size):
    golden = Golden(f'replknet_31b_{size}')
    torch.save({'model': golden.state_dict()}, tmp_path / 'official.pth')
    network = create_classifier('replknet_31b', checkpoint=tmp_path / 'official.pth').eval()
    with torch.inference_mode():
        check(golden, network)
        network.backbone.fuse()
        assert not any(isinstance(module, nn.BatchNorm2d) for module in network.backbone.modules())
        check(golden, network)


def test_outputs_with_gradients_are_the_official_ones(tmp_path):
    golden = Golden('replknet_31b_128x160')
    torch.save(golden.state_dict(), tmp_path / 'official.pth')
    check(golden, create_classifier('replknet_31b', checkpoint=tmp_path / 'official.pth').eval())


@pytest.mark.parametrize('size', SIZES)
def test_merging_gives_the_official_merged_form(tmp_path, size):
    golden = Golden(f'replknet_31b_merged_{size}')
    torch.save(golden.state_dict(), tmp_path / 'training.pth')
    network = create_classifier('replknet_31b', checkpoint=tmp_path / 'training.pth').eval()
    network.backbone.merge()
    state = network.state_dict()
    expected = golden.meta['merged_state_dict']
    assert {key: list(value.shape) for key, value in state.items()} == {key: shape for key, shape, *_ in expected}
    for key, _, *sums in expected:
        if sums:
            values = state[key].double()
            np.testing.assert_allclose([values.sum(), values.abs().sum()], sums, rtol=1e-5, atol=1e-4)
    assert sum(p.numel() for p in network.parameters()) == golden.meta['merged']['num_parameters']
    with torch.inference_mode():
        check(golden, network)


def test_merged_files_load_with_the_official_outputs(tmp_path):
    golden = Golden('replknet_31b_deploy_128x160')
    torch.save({'state_dict': golden.state_dict()}, tmp_path / 'merged.pth')
    network = create_classifier('replknet_31b', checkpoint=tmp_path / 'merged.pth', small_kernel_merged=True).eval()
    with torch.inference_mode():
        check(golden, network)
        network.backbone.fuse()
        check(golden, network)


@pytest.mark.parametrize('form', ['128x160', 'deploy_128x160'])
def test_parameters_equal_the_official_state_dict_to_the_last_number(form):
    official = {key: torch.Size(shape) for key, shape, _ in Golden(f'replknet_31b_{form}').meta['state_dict']}
    with torch.device('meta'):
        network = create_classifier('replknet_31b', small_kernel_merged=form.startswith('deploy'))
    assert {key: value.shape for key, value in network.state_dict().items()} == official


@pytest.mark.parametrize('name', PARAMETERS)
def test_parameter_counts_are_the_published_ones(name):
    for merged, published in zip((False, True), PARAMETERS[name], strict=False):
        with torch.device('meta'):
            network = create_classifier(name, small_kernel_merged=merged)
        assert round(sum(p.numel() for p in network.parameters()) / 1e6, 3) == published


@pytest.mark.parametrize('arch', [SMALL, WIDE], ids=['small kernel', 'none'])
def test_a_file_of_the_training_form_loads_into_the_merged_one(tmp_path, arch):
    network = lively(create_classifier('replknet_31b', arch=arch)).eval()
    torch.save({'model': network.state_dict()}, tmp_path / 'training.pth')
    options = dict(arch=arch, small_kernel_merged=True, checkpoint=tmp_path / 'training.pth')
    merged = create_classifier('replknet_31b', **options).eval()
    assert not any('lkb_origin' in key for key in merged.state_dict())
    image = torch.randn(1, 3, 75, 97)
    with torch.inference_mode():
        torch.testing.assert_close(merged(image), network(image), rtol=1e-4, atol=1e-4)
    report = load_pretrained(create_backbone('replknet_31b', out_indices=(0, 2), **options), tmp_path / 'training.pth')
    assert report.matched == report.total


def test_files_of_other_forms_are_errors_that_say_what_to_do(tmp_path):
    merged = create_backbone('replknet_31b', arch=SMALL, small_kernel_merged=True)
    torch.save(merged.state_dict(), tmp_path / 'merged.pth')
    with pytest.raises(CheckpointError, match='small_kernel_merged=True'):
        create_backbone('replknet_31b', arch=SMALL, checkpoint=tmp_path / 'merged.pth')
    assert load_pretrained(merged, tmp_path / 'merged.pth').matched
    torch.save(create_backbone('replknet_31b', arch=WIDE).state_dict(), tmp_path / 'wide.pth')
    with pytest.raises(CheckpointError, match=r'only in the network: .*lkb_reparam'):
        load_pretrained(merged, tmp_path / 'wide.pth')


def test_norms_of_the_dense_xl_load_under_their_published_names(tmp_path):
    state = lively(create_backbone('replknet_xl', arch=WIDE)).state_dict()
    # Theirs stand within the stages: out_norms.3.weight is stages.3.norm.weight.
    published = {
        'backbone.' + re.sub(r'^out_norms\.(\d)', r'stages.\1.norm', key): value for key, value in state.items()
    }
    assert 'backbone.stages.3.norm.running_var' in published
    torch.save({'state_dict': published}, tmp_path / 'detector.pth')
    network = create_backbone('replknet_xl', arch=WIDE, checkpoint=tmp_path / 'detector.pth')
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert isinstance(network.out_norms['3'], nn.BatchNorm2d)


@pytest.mark.parametrize('way', ['merged', 'merged, then fused', 'fused'])
@pytest.mark.parametrize('arch', [SMALL, WIDE], ids=['small kernel', 'none'])
def test_merged_and_fused_outputs_are_equal(arch, way):
    network = lively(create_backbone('replknet_31b', arch=arch)).eval()
    image = torch.randn(1, 3, 150, 203)
    with torch.inference_mode():
        expected = network(image)
        if 'merged' in way:
            network.merge().merge()
            assert not any('small_conv' in key for key in network.state_dict())
        if 'fused' in way:
            network.fuse()
            assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
        torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-4)
        # Nothing of a fused network depends on its mode.
        if 'fused' in way:
            torch.testing.assert_close(network.train()(image), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(('height', 'width'), [(150, 203), (203, 150), (33, 65)])
def test_odd_sizes_are_rounded_up(height, width):
    network = create_backbone('replknet_31b', arch=SMALL).eval()
    with torch.inference_mode():
        maps = network(torch.randn(1, 3, height, width))
    assert [tuple(m.shape[2:]) for m in maps] == [(-(-height // s), -(-width // s)) for s in (4, 8, 16, 32)]


def definition(block: nn.Module, x: Tensor) -> Tensor:
    """The block as published, on (N, C, H, W), with nothing but torch's own layers and autograd."""
    if isinstance(block, ConvFFN):
        y = F.gelu(block.pw1.bn(block.pw1.conv(block.preffn_bn(x))))
        return x + block.pw2.bn(block.pw2.conv(y))
    y = F.relu(block.pw1.bn(block.pw1.conv(block.prelkb_bn(x))))
    y = sum(branch.bn(branch.conv(y)) for branch in block.large_kernel.children())
    return x + block.pw2.bn(block.pw2.conv(F.relu(y)))


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('kind', ['large kernel', 'feed-forward'])
@pytest.mark.parametrize('size', [(9, 7), (40, 33), (1, 3)])
def test_outputs_and_gradients_are_those_of_the_definition(kind, size, training):
    block = RepLKBlock(16, 24, 29, 5, False, 0.0) if kind == 'large kernel' else ConvFFN(16, 64, 0.0)
    block = lively(block.double()).train(training)
    x = torch.randn(2, 16, *size, dtype=torch.double, requires_grad=True)
    inputs = [x, *block.parameters()]
    expected = definition(block, x)
    actual = block(x.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(actual, expected)
    grad = torch.randn_like(expected)
    torch.testing.assert_close(torch.autograd.grad(actual, inputs, grad), torch.autograd.grad(expected, inputs, grad))


def test_both_blocks_of_a_pair_share_a_drop_path_rate_and_a_depth():
    with torch.device('meta'):
        network = create_backbone('replknet_31b', drop_path_rate=0.46)
    blocks = [block for stage in network.stages for block in stage.blocks]
    assert [block.drop_path.rate for block in blocks] == pytest.approx([0.02 * (i // 2) for i in range(48)])
    assert network.num_blocks == 24
    positions = {name: network.layer_position(name) for name, _ in network.named_parameters()}
    assert positions['stem.3.conv.weight'] == (-1, 0)
    assert positions['transitions.1.0.conv.weight'] == positions['stages.2.blocks.1.pw1.conv.weight'] == (2, 5)
    assert positions['stages.3.blocks.3.preffn_bn.bias'] == (3, 24)


def test_an_unknown_norm_is_an_error():
    with pytest.raises(ValueError, match=r"out_norm='layer' of RepLKNet: expected False, True or 'batch'"):
        create_backbone('replknet_31b', arch=SMALL, out_norm='layer')
