"""Our classifiers as timm's scripts use them: its registry, optimizers by layer, heads, files."""

from pathlib import Path

import pytest
import timm
import torch
from families import ONE_OF_EACH, tiny_arch
from timm.data import resolve_data_config
from timm.optim import create_optimizer_v2

import hybrid_backbones.timm_models  # noqa: F401  (registers)
from hybrid_backbones import create_classifier
from hybrid_backbones._meta import meta_device
from hybrid_backbones.checkpoints.errors import ByHandError

NAMES = [name for name in ONE_OF_EACH if not name.startswith('timm_')]


def tiny(name: str, **options) -> torch.nn.Module:
    arch = tiny_arch(name.partition('.')[0])
    return timm.create_model(name, **options | ({} if arch is None else dict(arch=arch)))


@pytest.mark.parametrize('name', NAMES)
def test_the_smallest_of_each_family_has_what_timm_asks_of_a_model(name):
    with meta_device():
        network = timm.create_model(name, num_classes=10, drop_path_rate=0.1)
        features = network.eval().forward_features(torch.empty(2, 3, 64, 64))
        assert network.forward_head(features).shape == (2, 10)
        assert network.forward_head(features, pre_logits=True).shape == (2, network.head_hidden_size)
        assert network.get_classifier().weight.shape[:2] == (10, network.head_hidden_size)
        network.reset_classifier(3)
        assert (network.forward_head(features).shape, network.num_classes) == ((2, 3), 3)
        network.reset_classifier(0)
        assert network.forward_head(features).shape == (2, network.head_hidden_size)
    layers = timm.models.group_parameters(network, network.group_matcher(), reverse=True)
    assert layers.keys() == dict(network.named_parameters()).keys()
    assert len({*layers.values()}) >= network.backbone.num_blocks + 1
    assert network.no_weight_decay() <= layers.keys()


def test_a_step_by_timms_optimizer_with_layer_decay_moves_every_parameter():
    network = tiny('coatnet_0', num_classes=2, drop_path_rate=0.1)
    network.set_grad_checkpointing()
    optimizer = create_optimizer_v2(network, 'adamw', lr=1e-2, weight_decay=0.05, layer_decay=0.5)
    scales = [group['lr_scale'] for group in optimizer.param_groups]
    assert max(scales) == 1
    assert min(scales) == pytest.approx(0.5 ** (network.backbone.num_blocks + 1))
    undecayed = {id(p) for group in optimizer.param_groups if not group['weight_decay'] for p in group['params']}
    assert {id(p) for name, p in network.named_parameters() if name.endswith('bias_table')} <= undecayed
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    torch.nn.functional.cross_entropy(network(torch.randn(2, 3, 64, 64)), torch.tensor([0, 1])).backward()
    optimizer.step()
    assert not [name for name, p in network.named_parameters() if torch.equal(p, before[name])]


@pytest.mark.parametrize('name', ['cvt_13', 'conv2former_t', 'moat_0'])
def test_a_file_of_other_classes_fills_all_but_the_classifier(name, tmp_path):
    path = tmp_path / 'seven.pth'
    published = create_classifier(name, num_classes=7, arch=tiny_arch(name))
    torch.save(published.state_dict(), path)
    network = tiny(name, pretrained=True, num_classes=3, pretrained_cfg_overlay=dict(file=str(path), num_classes=-1))
    own = network.state_dict()
    other = {key for key, value in published.state_dict().items() if not torch.equal(value, own[key])}
    assert {key.rpartition('.')[0] for key in other} == {*network.classifier_names}
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, 3)
    same = tiny(name, pretrained=True, pretrained_cfg_overlay=dict(file=str(path), num_classes=7))
    assert all(torch.equal(value, published.state_dict()[key]) for key, value in same.state_dict().items())


def test_pretrained_networks_are_those_of_the_index_with_its_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert timm.list_pretrained('cvt_13*') == ['cvt_13.in1k', 'cvt_13.in1k_384', 'cvt_13.in22k_ft_in1k_384']
    data = resolve_data_config({}, model=tiny('moat_2.in22k_ft_in1k_384'))
    assert (data['input_size'], data['mean'], data['crop_pct']) == ((3, 384, 384), (0.5, 0.5, 0.5), 1.0)
    assert resolve_data_config({}, model=tiny('cvt_13'))['mean'] == (0.485, 0.456, 0.406)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    with pytest.raises(ByHandError, match=r'conv2former_t_in1k can only be fetched by hand'):
        tiny('conv2former_t', pretrained=True)


def test_a_distillation_token_trains_as_timms_does():
    network = tiny('deit_t.distilled_in1k', num_classes=5)
    assert len(network.get_classifier()) == 2
    image = torch.randn(2, 3, 32, 32)
    expected = network.eval()(image)
    network.head.train()
    torch.testing.assert_close(network(image), expected)


def test_what_these_networks_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r'in_chans=1: .* have 3 only'):
        timm.create_model('cvt_13', in_chans=1)
