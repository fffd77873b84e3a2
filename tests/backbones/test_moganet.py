"""MogaNet is the authors' network: outputs and logits of their code, parameters to the last digit, folding, decay."""

import copy

import pytest
import torch
from goldens import Golden
from torch import nn

from hybrid_backbones import create_backbone, create_classifier
from hybrid_backbones.backbones.moganet import MogaNet
from hybrid_backbones.engine.config import read_config
from hybrid_backbones.profiling.cost import model_cost

CASES = {
    'moganet_xt_224x224': 'moganet_xt',
    'moganet_t_160x224': 'moganet_t',
    'moganet_t_odd_150x203': 'moganet_t',
    'moganet_s_128x160': 'moganet_s',
}
# Of the classifiers that the official code builds, where no golden has them. Its README rounds them differently.
PARAMETERS = {'moganet_b': 43_720_475, 'moganet_l': 82_480_978, 'moganet_xl': 180_991_924}


@pytest.mark.parametrize('case', CASES)
def test_outputs_and_logits_are_those_of_the_official_code(tmp_path, case):
    golden = Golden(case)
    torch.save({'state_dict': golden.state_dict()}, tmp_path / 'official.pth')
    network = create_classifier(CASES[case], checkpoint=tmp_path / 'official.pth').eval()
    with torch.inference_mode():
        for stage, output in enumerate(network.backbone(golden.image())):
            golden.check(f'stage{stage}', output)
        golden.check_logits(network(golden.image()))


def test_outputs_with_gradients_and_folded_are_the_official_ones(tmp_path):
    golden = Golden('moganet_xt_224x224')
    torch.save(golden.state_dict(), tmp_path / 'official.pth')
    network = create_backbone('moganet_xt', checkpoint=tmp_path / 'official.pth').eval()
    for maps in (network(golden.image()), copy.deepcopy(network).fuse()(golden.image())):
        for stage, output in enumerate(maps):
            golden.check(f'stage{stage}', output.detach())


@pytest.mark.parametrize('case', ['moganet_xt_224x224', 'moganet_t_160x224', 'moganet_s_128x160'])
def test_parameters_are_those_of_the_official_code(case):
    with torch.device('meta'):
        Golden(case).check_parameters(create_classifier(CASES[case]), create_backbone(CASES[case]), ('head.',))


@pytest.mark.parametrize('name', PARAMETERS)
def test_larger_variants_have_the_parameters_of_the_official_code(name):
    with torch.device('meta'):
        network = create_classifier(name)
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]


def test_folding_leaves_the_norms_that_shortcuts_and_outputs_read():
    network = create_backbone('moganet_t', arch=MogaNet.tiny_arch).fuse()
    norms = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    blocks = [f'blocks{i + 1}.{j}.norm1' for i, depth in enumerate(network.depths) for j in range(depth)]
    assert sorted(norms) == sorted([*blocks, *(f'norm{i + 1}' for i in range(4))])


def test_initialisation_is_the_authors():
    state = create_backbone('moganet_t').state_dict()
    assert state['blocks3.4.mlp.fc1.weight'].std() == pytest.approx((2 / 512) ** 0.5, rel=0.05)
    assert state['blocks3.4.mlp.dwconv.weight'].std() == pytest.approx((2 / 9) ** 0.5, rel=0.05)
    assert state['blocks3.4.layer_scale_1'].eq(1e-5).all() and state['blocks3.4.attn.sigma.scale'].eq(1e-5).all()


def test_widths_that_the_three_convolutions_cannot_share_are_an_error():
    with pytest.raises(ValueError, match=r'dims=\(8, 12, 24, 32\): expected multiples of 8'):
        MogaNet(dict(MogaNet.tiny_arch, dims=(8, 12, 24, 32)))


def test_a_detector_has_the_published_parameters_and_cost():
    """Of the README, whose MACs are mmdet 2's: a few tenths of 1 % are norms and activations."""
    cost = model_cost(read_config('configs/maskrcnn_moganet_t_coco.py'), (800, 1280))
    assert cost.parameters / 1e6 == pytest.approx(25.0, abs=0.05)
    assert cost.macs / 1e9 == pytest.approx(191.7, rel=0.004)
