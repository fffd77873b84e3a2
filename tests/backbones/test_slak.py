"""SLaK is the authors' network: outputs and logits, folded branches, sizes, gradients, and zeros that stay zeros.

No test compares with the golden `slak_tiny_nodecom_merged_96x128`: it is of the undecomposed form, which no published
model has and which is not built here.
"""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from goldens import Golden
from mmengine.optim import build_optim_wrapper
from torch import Tensor, nn

from hybrid_backbones import create_backbone, create_classifier
from hybrid_backbones.backbones import slak
from hybrid_backbones.backbones.slak import Block, zero_share
from hybrid_backbones.layers.large_kernel import merge_kernels

# Goldens of the training form, and of one kernel for the three branches of the same weights.
SIZES = ['128x160', '224x224']
SMALL = dict(depths=(1, 1, 2, 1), dims=(9, 17, 24, 31), kernel_sizes=(31, 15, 7, 5), small_kernel=5)

# Reference page, section 12: parameters of the classifiers in millions.
PARAMETERS = {'slak_t': 50.704, 'slak_s': 91.132, 'slak_b': 157.951}


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
    large = []
    first = network.backbone.stages[0][0]
    hook = first.large_kernel.register_forward_hook(lambda *args: large.append(args[-1].permute(0, 3, 1, 2).detach()))
    maps = network.backbone(golden.image())
    hook.remove()
    golden.check('stage0_block0_large_kernel', large[0])
    for stage, output in enumerate(maps):
        golden.check(f'stage{stage}', output.detach())
    golden.check_logits(network(golden.image()).detach())


@pytest.mark.parametrize('size', SIZES)
def test_outputs_and_logits_are_those_of_the_official_code(tmp_path, size):
    golden = Golden(f'slak_tiny_{size}')
    torch.save({'model': golden.state_dict()}, tmp_path / 'official.pth')
    network = create_classifier('slak_t', checkpoint=tmp_path / 'official.pth').eval()
    with torch.inference_mode():
        check(golden, network)


@pytest.mark.parametrize('keep_sparse', [False, True])
def test_outputs_with_gradients_are_the_official_ones(tmp_path, keep_sparse):
    golden = Golden('slak_tiny_128x160')
    torch.save(golden.state_dict(), tmp_path / 'official.pth')
    check(golden, create_classifier('slak_t', checkpoint=tmp_path / 'official.pth', keep_sparse=keep_sparse).eval())


@pytest.mark.parametrize('size', SIZES)
def test_folded_branches_are_the_merged_form(tmp_path, size):
    golden = Golden(f'slak_tiny_merged_{size}')
    torch.save(golden.state_dict(), tmp_path / 'official.pth')
    network = create_classifier('slak_t', checkpoint=tmp_path / 'official.pth').eval()
    network.backbone.fuse()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert not any('gamma' in name for name, _ in network.named_parameters())
    merged = {}
    for i, stage in enumerate(network.backbone.stages):
        for j, block in enumerate(stage):
            assert block.large_kernel.LoRA1.conv.weight.shape[2:] == ((51, 49, 47, 13)[i], 5)
            weights, bias = block.large_kernel.folded()
            prefix = f'stages.{i}.{j}.large_kernel.lkb_reparam.'
            merged |= {f'{prefix}weight': merge_kernels(weights), f'{prefix}bias': bias}
    expected = {key: (shape, sums) for key, shape, *sums in golden.meta['merged_state_dict'] if sums}
    assert merged.keys() == expected.keys()
    for key, (shape, sums) in expected.items():
        assert list(merged[key].shape) == shape
        values = merged[key].double()
        np.testing.assert_allclose([values.sum().item(), values.abs().sum().item()], sums, rtol=1e-5, atol=1e-3)
    with torch.inference_mode():
        check(golden, network)


def test_parameters_equal_the_official_state_dict_to_the_last_number():
    official = {key: torch.Size(shape) for key, shape, _ in Golden('slak_tiny_128x160').meta['state_dict']}
    for keep_sparse in (False, True):
        with torch.device('meta'):
            state = create_classifier('slak_t', keep_sparse=keep_sparse).state_dict()
        assert {key: value.shape for key, value in state.items()} == official


@pytest.mark.parametrize('name', PARAMETERS)
def test_parameter_count_is_the_published_one(name):
    with torch.device('meta'):
        count = sum(p.numel() for p in create_classifier(name).parameters())
    assert round(count / 1e6, 3) == PARAMETERS[name]


def definition(block: Block, x: Tensor) -> Tensor:
    """The block as published, on (N, C, H, W), with nothing but torch's own layers and autograd."""
    y = sum(branch.bn(branch.conv(x)) for branch in block.large_kernel.children())
    y = F.layer_norm(y.movedim(1, -1), block.norm.normalized_shape, block.norm.weight, block.norm.bias, 1e-6)
    return x + (block.gamma * block.pwconv2(F.gelu(block.pwconv1(y)))).movedim(-1, 1)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('size', [(9, 7), (40, 33), (1, 3)])
def test_outputs_and_gradients_are_those_of_the_definition(size, training):
    block = Block(17, 29, 5, drop_path=0.0, layer_scale_init=1.0)
    block = lively(block.double()).train(training)
    x = torch.randn(2, 17, *size, dtype=torch.double, requires_grad=True)
    inputs = [x, *block.parameters()]
    expected = definition(block, x)
    actual = block(x.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(actual, expected)
    grad = torch.randn_like(expected)
    torch.testing.assert_close(torch.autograd.grad(actual, inputs, grad), torch.autograd.grad(expected, inputs, grad))


def test_fused_outputs_are_equal_in_either_mode():
    network = lively(create_backbone('slak_t', arch=SMALL)).eval()
    image = torch.randn(1, 3, 150, 203)
    with torch.inference_mode():
        expected = network(image)
        fused = network.fuse()
        torch.testing.assert_close(fused(image), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(fused.train()(image), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(('height', 'width'), [(150, 203), (203, 150), (32, 95)])
def test_odd_sizes_are_floored(height, width):
    network = create_backbone('slak_t', arch=SMALL).eval()
    with torch.inference_mode():
        maps = network(torch.randn(1, 3, height, width))
    assert [tuple(m.shape[2:]) for m in maps] == [(height // s, width // s) for s in (4, 8, 16, 32)]


def test_layer_scale_starts_as_published_and_survives_init_weights():
    network = create_backbone('slak_t', arch=SMALL)
    network.init_weights()
    scales = [p for name, p in network.named_parameters() if 'gamma' in name]
    assert len(scales) == 5
    assert all(torch.all(scale == 1e-6) for scale in scales)


def test_depths_and_drop_path_rates_run_through_the_blocks():
    with torch.device('meta'):
        network = create_backbone('slak_t', drop_path_rate=0.34)
    rates = [block.drop_path.rate for stage in network.stages for block in stage]
    assert rates == pytest.approx([0.02 * i for i in range(18)])
    positions = {name: network.layer_position(name) for name, _ in network.named_parameters()}
    assert positions['downsample_layers.0.1.weight'] == (-1, 0)
    assert positions['downsample_layers.2.1.weight'] == positions['stages.2.0.large_kernel.LoRA2.bn.bias'] == (2, 7)
    assert positions['stages.3.2.gamma'] == (3, 18)


@pytest.fixture
def sparse_file(tmp_path):
    """A file as published: dense tensors, four tenths of the numbers in matrices and kernels zero."""
    state = lively(create_classifier('slak_t', arch=SMALL)).state_dict()
    for value in state.values():
        if value.ndim > 1:
            value.mul_(torch.rand_like(value) > 0.4)
    torch.save({'model': state}, tmp_path / 'sparse.pth')
    return tmp_path / 'sparse.pth'


def zeros_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: p == 0 for name, p in network.named_parameters() if p.ndim > 1}


@pytest.mark.parametrize('create', [create_backbone, create_classifier])
def test_the_sparsity_of_a_file_is_reported(sparse_file, monkeypatch, create):
    lines = []
    monkeypatch.setattr(slak, 'print_log', lambda line, logger: lines.append(line))
    create('slak_t', arch=SMALL, checkpoint=sparse_file)
    create('slak_t', arch=SMALL, checkpoint=sparse_file, keep_sparse=True)
    share = zero_share(torch.load(sparse_file)['model'])
    assert share == pytest.approx(0.4, abs=0.01)
    assert f'{share:.1%} of the weights in the file are zero' in lines[0]
    assert 'keep_sparse=True' in lines[0]
    assert 'kept in training' in lines[1]


def test_the_share_of_zeros_counts_matrices_and_kernels():
    assert zero_share({'w': torch.eye(4), 'b': torch.zeros(100), 'n': torch.tensor(0)}) == 12 / 16
    assert zero_share({'b': torch.zeros(3)}) == 0


def steps(network: nn.Module, optimizer: torch.optim.Optimizer, number: int, seed: int = 0, side: int = 64) -> None:
    torch.manual_seed(seed)
    for _ in range(number):
        sum(m.square().mean() for m in network(torch.randn(2, 3, side, side))).backward()
        optimizer.step()
        optimizer.zero_grad()


OPTIMIZERS = {
    'AdamW': lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.3),
    'AdamW in one kernel': lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.3, fused=True),
    'SGD': lambda parameters: torch.optim.SGD(parameters, lr=1e-2, momentum=0.9, weight_decay=0.3),
}


@pytest.mark.parametrize('optimizer', OPTIMIZERS)
@pytest.mark.parametrize('options', [{}, dict(with_cp=True), dict(norm_eval=True)], ids=str)
def test_zeros_stay_zero_in_training(sparse_file, optimizer, options):
    network = create_backbone('slak_t', arch=SMALL, checkpoint=sparse_file, keep_sparse=True, **options).train()
    before, values = zeros_of(network), copy.deepcopy(dict(network.named_parameters()))
    optimizer = OPTIMIZERS[optimizer](network.parameters())
    steps(network, optimizer, 1)
    for name, parameter in network.named_parameters():
        if name in before:
            # All others move. (Later steps may take one back to where it was.)
            assert (parameter != values[name])[~before[name]].all(), name
    steps(network, optimizer, 2)
    after = zeros_of(network)
    for name, zeros in before.items():
        assert zeros.any() and torch.equal(after[name], zeros)


def test_without_the_option_training_makes_the_network_dense(sparse_file):
    network = create_backbone('slak_t', arch=SMALL, checkpoint=sparse_file).train()
    # At 160 pixels every tap of every kernel meets a pixel.
    steps(network, OPTIMIZERS['AdamW'](network.parameters()), 1, side=160)
    assert not any(zeros.any() for zeros in zeros_of(network).values())


def test_the_remaining_gradients_are_those_of_the_dense_network(sparse_file):
    grads = []
    for keep_sparse in (False, True):
        network = create_backbone('slak_t', arch=SMALL, checkpoint=sparse_file, keep_sparse=keep_sparse).train()
        torch.manual_seed(0)
        sum(m.square().mean() for m in network(torch.randn(2, 3, 64, 64))).backward()
        grads.append({name: p.grad for name, p in network.named_parameters()})
    zeros = zeros_of(network)
    for name, grad in grads[0].items():
        expected = grad * ~zeros[name] if name in zeros else grad
        torch.testing.assert_close(grads[1][name], expected, rtol=1e-4, atol=1e-6)


def test_zeros_survive_copies_autocast_and_a_resumed_run(sparse_file, tmp_path):
    network = create_backbone('slak_t', arch=SMALL, checkpoint=sparse_file, keep_sparse=True).train()
    before = zeros_of(network)
    optimizer = OPTIMIZERS['AdamW'](network.parameters())
    steps(network, optimizer, 2)
    torch.save(dict(state_dict=network.state_dict(), optimizer=optimizer.state_dict()), tmp_path / 'iter_2.pth')
    with torch.autocast('cpu', torch.bfloat16):
        steps(network, optimizer, 2, seed=1)

    resumed = copy.deepcopy(create_backbone('slak_t', arch=SMALL, keep_sparse=True)).train()
    again = OPTIMIZERS['AdamW'](resumed.parameters())
    saved = torch.load(tmp_path / 'iter_2.pth')
    assert saved['state_dict'].keys() == create_backbone('slak_t', arch=SMALL).state_dict().keys()
    resumed.load_state_dict(saved['state_dict'])
    again.load_state_dict(saved['optimizer'])
    with torch.autocast('cpu', torch.bfloat16):
        steps(resumed, again, 2, seed=1)
    for network_ in (network, resumed):
        assert all(torch.equal(zeros, before[name]) for name, zeros in zeros_of(network_).items())
    torch.testing.assert_close(resumed.state_dict(), network.state_dict())


def test_zeros_survive_the_configs_optimizer_and_fusing(sparse_file):
    network = create_backbone('slak_t', arch=SMALL, checkpoint=sparse_file, keep_sparse=True).train()
    before = zeros_of(network)
    wrapper = build_optim_wrapper(
        network,
        dict(
            type='OptimWrapper',
            constructor='LayerDecayOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.05),
            paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.7, num_layers=6),
            clip_grad=dict(max_norm=1.0),
        ),
    )
    for _ in range(2):
        wrapper.update_params(sum(m.square().mean() for m in network(torch.randn(2, 3, 64, 64))))
    network.eval().fuse()
    assert all(torch.equal(zeros, before[name]) for name, zeros in zeros_of(network).items())


def test_a_network_from_scratch_trains_all_its_weights_under_the_option():
    network = lively(create_backbone('slak_t', arch=SMALL, keep_sparse=True)).train()
    sum(m.square().mean() for m in network(torch.randn(2, 3, 160, 160))).backward()
    assert all(p.grad.all() for p in network.parameters() if p.ndim > 1)
