"""Files of other publishers load completely, and no key of theirs is left over.

mmpretrain's and distribuuuu's names are written down here, because their code does not run beside this package;
transformers' CvT is compared by its logits in tests/backbones/test_cvt.py.
"""

import re

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from hybrid_backbones import create_backbone, create_classifier
from hybrid_backbones.backbones.factory import find_backbone
from hybrid_backbones.checkpoints import CheckpointError, KeyLayout, list_published, load_pretrained
from hybrid_backbones.zoo.identify import identify

TINY = {name: find_backbone(name)[0].tiny_arch for name in ('cvt_13', 'hornet_t_gf', 'replknet_xl')}
CLASSES = 7


def randomized(network: nn.Module) -> nn.Module:
    torch.manual_seed(5)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) * 0.2 + 0.1)
    return network.eval()


def name_of_mmpretrain_hornet(key: str) -> str:
    if key.startswith('head.'):
        return key.replace('head.', 'head.fc.')
    key = key.replace('gnconv.pws', 'gnconv.projs')
    key = f'{key}.weight' if key.endswith(('gamma1', 'gamma2')) else key
    return 'backbone.' + (key.replace('norm.', 'norm3.') if key.startswith('norm.') else key)


def name_of_mmpretrain_replknet(key: str) -> str:
    if key.startswith('head.'):
        return key.replace('head.', 'head.fc.')
    return 'backbone.' + (f'stages.3.{key}' if key.startswith('norm.') else key)


MMPRETRAIN = {'hornet_t_gf': name_of_mmpretrain_hornet, 'replknet_xl': name_of_mmpretrain_replknet}


@pytest.fixture
def classifier_file(tmp_path):
    """Writes a classifier of mmpretrain; it, under this package's names, and the file."""

    def write(name: str):
        network = randomized(create_classifier(name, CLASSES, arch=TINY[name]))
        state = {MMPRETRAIN[name](key): value for key, value in network.state_dict().items()}
        torch.save({'state_dict': state, 'meta': {}}, tmp_path / 'mmpretrain.pth')
        return network, tmp_path / 'mmpretrain.pth'

    return write


@pytest.mark.parametrize('name', MMPRETRAIN)
def test_classifiers_of_mmpretrain_load_completely(classifier_file, name):
    expected, file = classifier_file(name)
    network = create_classifier(name, CLASSES, arch=TINY[name])
    report = load_pretrained(network, file)
    assert report.matched == report.total
    assert not report.ignored
    image = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(image), expected(image), rtol=0, atol=0)


@pytest.mark.parametrize('name', MMPRETRAIN)
def test_output_norms_of_a_backbone_do_not_take_the_norm_of_a_classifier(classifier_file, name):
    _, file = classifier_file(name)
    network = create_backbone(name, arch=TINY[name], out_norm='batch' if name.startswith('replknet') else True)
    report = load_pretrained(network, file)
    assert report.ignored[0].startswith('head.')
    assert {key.split('.')[0] for key in report.initial} == {'out_norms'}
    assert len(report.initial) >= 8
    assert torch.equal(network.out_norms['3'].weight, torch.ones(32))


@pytest.mark.parametrize('name', ['hornet_t_gf', 'slak_t'])
def test_output_norms_of_the_authors_detectors_load(tmp_path, name):
    arch = find_backbone(name)[0].tiny_arch
    expected = randomized(create_backbone(name, arch=arch)).state_dict()
    names = {key: re.sub(r'^out_norms\.', 'norm', key) for key in expected}
    torch.save({'state_dict': {f'backbone.{names[k]}': v for k, v in expected.items()}}, tmp_path / 'detector.pth')
    network = create_backbone(name, arch=arch)
    report = load_pretrained(network, tmp_path / 'detector.pth')
    assert report.matched == report.total
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())


def distribuuuu_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A botnet_s1_50 as `nn.Sequential(*resnet50().children()[:-3], BottleStack, pool, Flatten(), Linear)`."""
    places = {name: index for index, (name, _) in enumerate(resnet50().named_children())}
    assert (places['conv1'], places['layer3'], places['layer4']) == (0, 6, 7)
    theirs = {}
    for key, value in state.items():
        top, rest = key.split('.', 1)
        if top == 'fc':
            theirs[f'10.{rest}'] = value
        elif top != 'layer4':
            theirs[f'{places[top]}.{rest}'] = value
        elif 'conv2.qkv' in rest:
            stem = f'7.net.{rest.split(".")[0]}.net.3.'
            theirs[f'{stem}to_qk.weight'], theirs[f'{stem}to_v.weight'] = value[:1024], value[1024:]
        else:
            theirs[f'7.net.{name_in_stack(rest)}'] = value
    return theirs


def name_in_stack(key: str) -> str:
    """`0.conv1.weight` of the last stage within the BottleStack of BoTNet's translation."""
    layers = {'conv1': 'net.0', 'bn1': 'net.1', 'conv2': 'net.3.pos_emb', 'bn2': 'net.5', 'conv3': 'net.7'}
    block, layer, rest = key.split('.', 2)
    return f'{block}.{(layers | {"bn3": "net.8", "downsample": "shortcut"})[layer]}.{rest}'


def test_the_botnet_of_distribuuuu_loads_completely(tmp_path):
    expected = randomized(create_classifier('botnet_s1_50'))
    theirs = distribuuuu_names(expected.state_dict())
    assert len(theirs) == 329
    torch.save({'state_dict': theirs}, tmp_path / 'best.pth.tar')
    network = create_classifier('botnet_s1_50')
    report = load_pretrained(network, tmp_path / 'best.pth.tar')
    assert report.matched == report.total == 20_859_176
    assert all(torch.equal(value, expected.state_dict()[key]) for key, value in network.state_dict().items())
    (match,) = identify(tmp_path / 'best.pth.tar')
    assert match.backbone == 'botnet_s1_50'
    assert match.complete


@pytest.mark.parametrize('name', MMPRETRAIN)
def test_files_of_mmpretrain_are_identified(tmp_path, name):
    with torch.device('meta'):
        shapes = create_classifier(name, CLASSES).state_dict()
    state = {MMPRETRAIN[name](key): torch.empty(value.shape, dtype=torch.bool) for key, value in shapes.items()}
    torch.save({'state_dict': state}, tmp_path / 'mmpretrain.pth')
    (match,) = identify(tmp_path / 'mmpretrain.pth')
    assert match.backbone == name
    assert match.complete
    assert match.classes == CLASSES


def test_every_layout_of_the_index_is_one_of_its_family():
    for row in list_published():
        layouts = {'', *find_backbone(row.backbone)[0].checkpoint_layouts}
        assert {source.layout for source in row.sources} <= layouts, row.name


def test_matrices_that_are_transposed_are_an_error(tmp_path):
    state = create_classifier('cvt_13', CLASSES, arch=TINY['cvt_13']).state_dict()
    torch.save({k: v.T.contiguous() if v.ndim == 2 else v for k, v in state.items()}, tmp_path / 'paddle.pth')
    with pytest.raises(CheckpointError, match=r'matrices .* transposed(.|\n)*Nothing was loaded'):
        create_classifier('cvt_13', CLASSES, tmp_path / 'paddle.pth', arch=TINY['cvt_13'])


def test_a_layout_renames_in_order_and_concatenates_in_order():
    layout = KeyLayout(r'^x\.', ((r'^x\.', 'y.'), (r'^y\.a', 'z.a')), concatenated=((('q', 'v'), 'qv'),))
    state = {'x.a.q': torch.tensor([1]), 'x.a.v': torch.tensor([2]), 'x.b': torch.tensor([3])}
    assert layout.recognizes(state)
    assert {key: value.tolist() for key, value in layout.translate(state).items()} == {'y.b': [3], 'z.a.qv': [1, 2]}
