"""What is published loads back bit for bit, and verification counts what a classifier recognizes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from hybrid_backbones import create_backbone, create_classifier
from hybrid_backbones.checkpoints import CheckpointError, published
from hybrid_backbones.checkpoints.published import Family, Published
from hybrid_backbones.checkpoints.sources import Source
from hybrid_backbones.zoo.fetch import fetch
from hybrid_backbones.zoo.publish import publish
from hybrid_backbones.zoo.verify import verify, wilson_interval

ARCH = dict(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), kernel_size=3)


@pytest.mark.parametrize('kind', ['classifier', 'detector'])
def test_a_published_folder_loads_back_bit_for_bit(tmp_path, kind):
    network = create_classifier('deit_t', num_classes=7) if kind == 'classifier' else create_backbone('deit_t')
    state = {f'backbone.{k}' if kind == 'detector' else k: v for k, v in network.state_dict().items()}
    torch.save({'state_dict': state}, tmp_path / 'file.pth')
    publish(str(tmp_path / 'file.pth'), tmp_path / 'out', 'MIT')
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'README.md',
        'config.json',
        'model.safetensors',
    ]
    modes = {path.stat().st_mode for path in (tmp_path / 'out').iterdir()}
    assert len(modes) == 1, 'whoever reads the card reads the weights'
    config = json.loads((tmp_path / 'out' / 'config.json').read_text())
    assert config['backbone'] == 'deit_t'
    assert config['num_classes'] == (7 if kind == 'classifier' else None)
    card = (tmp_path / 'out' / 'README.md').read_text()
    assert card.startswith('---\nlicense: mit\n')
    function = create_classifier if kind == 'classifier' else create_backbone
    options = dict(num_classes=7) if kind == 'classifier' else {}
    again = function(config['backbone'], checkpoint=tmp_path / 'out', **options, **config['options'])
    kept = {k: v for k, v in network.state_dict().items() if not k.startswith('pyramid.')}
    assert all(torch.equal(again.state_dict()[key], value) for key, value in kept.items())
    with pytest.raises(FileExistsError, match='give a new folder'):
        publish(str(tmp_path / 'file.pth'), tmp_path / 'out', 'MIT')


def test_the_card_has_what_the_run_measured_at_the_checkpoint(tmp_path):
    state = {f'backbone.{key}': value for key, value in create_backbone('deit_t').state_dict().items()}
    torch.save({'state_dict': state}, tmp_path / 'epoch_2.pth')
    records = [{'coco/bbox_mAP': value, 'coco/bbox_mAP_s': 0.1, 'step': step} for step, value in ((1, 0.2), (2, 0.413))]
    log = tmp_path / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('\n'.join(map(json.dumps, [{'loss': 1.0, 'lr': 0.1, 'epoch': 1, 'step': 7}, *records])))
    publish(str(tmp_path / 'epoch_2.pth'), tmp_path / 'out', 'MIT')
    assert 'on the validation data of its run: coco/bbox_mAP 0.413.' in (tmp_path / 'out' / 'README.md').read_text()


def test_what_cannot_be_published_leaves_nothing(tmp_path):
    torch.save({'x': torch.zeros(1)}, tmp_path / 'file.pth')
    with pytest.raises(ValueError, match='--licence MIT'):
        publish(str(tmp_path / 'file.pth'), tmp_path / 'out')
    with pytest.raises(CheckpointError, match='no registered network'):
        publish(str(tmp_path / 'file.pth'), tmp_path / 'out', 'MIT')
    assert [path.name for path in tmp_path.iterdir()] == ['file.pth']


@pytest.fixture
def classifier(tmp_path, monkeypatch):
    """A classifier in an index of its own, whose file is in the cache; the published figure is 100 %."""
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    network = create_classifier('conv2former_n', arch=ARCH)
    (tmp_path / 'hub' / 'checkpoints').mkdir(parents=True)
    torch.save(network.state_dict(), tmp_path / 'hub' / 'checkpoints' / 'tiny.pth')
    source = Source('https://example.org/tiny.pth')
    row = Published('tiny', 'conv2former_n', {'arch': ARCH}, '-', 224, 100.0, 1000, 0, '', (source,), 'X', 'MIT', '')
    monkeypatch.setattr(published, 'families', lambda: (Family('X', 'MIT', '', '', (row,)),))
    return network.eval()


def test_verification_counts_what_is_recognized(classifier, tmp_path):
    """All images are one, so that the classifier sees one class in them, to which three of the four belong."""
    from timm.data import ImageNetInfo

    pixels = np.full((256, 256, 3), 90, np.uint8)
    x = torch.from_numpy(pixels[:224, :224]).permute(2, 0, 1)[None].float()
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (classifier.backbone.image_mean, classifier.backbone.image_std)
    )
    with torch.inference_mode():
        seen = int(classifier((x - mean) / std).argmax())
    names = ImageNetInfo('imagenet-1k').label_names()
    for number, name in enumerate([names[seen]] * 3 + [names[seen - 1]]):
        (tmp_path / 'val' / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / 'val' / name / f'{number}.png')
    assert ' 75.00 % of 4 images (95 %: 30.06 to 95.44), DIFFERS from the published 100.0' in verify(
        '*', tmp_path / 'val'
    )
    assert ' of 2 images' in verify('tiny', tmp_path / 'val', sample=2)


def test_wrong_folders_are_errors(classifier, tmp_path):
    (tmp_path / 'val').mkdir()
    with pytest.raises(ValueError, match='has no images'):
        verify('*', tmp_path / 'val')
    (tmp_path / 'val' / 'cats').mkdir()
    Image.new('RGB', (8, 8)).save(tmp_path / 'val' / 'cats' / '0.png')
    with pytest.raises(ValueError, match=r'cats is no class of ImageNet-1k'):
        verify('*', tmp_path / 'val')
    with pytest.raises(CheckpointError, match='no file of x is on this machine'):
        verify('x', tmp_path / 'val')


def test_the_interval_is_wilsons():
    assert wilson_interval(0, 10) == pytest.approx((0, 27.75), abs=0.01)
    assert wilson_interval(40_000, 50_000) == pytest.approx((79.65, 80.35), abs=0.01)


def test_fetch_names_what_is_missing_and_where_the_rest_is(classifier):
    assert fetch(['tiny']).endswith('checkpoints/tiny.pth')
    assert fetch([], everything=True).startswith('tiny ')
    with pytest.raises(ValueError, match='--all'):
        fetch([])
    with pytest.raises(CheckpointError, match='no published file'):
        fetch(['other'])
