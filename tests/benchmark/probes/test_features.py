"""Maps are those of an evaluation, and are read again only where they are what was asked for."""

import dataclasses
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner

from hybrid_backbones import create_backbone
from hybrid_backbones.benchmark.probes import FeaturesError, Subject, compute_features
from hybrid_backbones.benchmark.probes import features as module
from hybrid_backbones.swap import swap_backbone

from .conftest import SUBJECT, shapes_config


@pytest.fixture(scope='module')
def cfg() -> Config:
    return shapes_config('upernet', train=3, val=2)


def _files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_maps_are_those_of_the_evaluated_model(cfg, tmp_path):
    checkpoint = tmp_path / 'moat.pth'
    torch.save(create_backbone('tiny_moat_0').state_dict(), checkpoint)
    features = compute_features(cfg, 'val', Subject('tiny_moat_0', str(checkpoint)), tmp_path / 'features')
    swapped = swap_backbone(cfg, 'tiny_moat_0', checkpoint)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(swapped.model)
        loader = dict(swapped.val_dataloader, num_workers=0, persistent_workers=False)
        batch = next(iter(Runner.build_dataloader(loader)))
    model.init_weights()
    with torch.inference_mode():
        maps = model.eval().backbone(model.data_preprocessor(batch)['inputs'])
    for level, expected in enumerate(maps):
        torch.testing.assert_close(features.level(0, level), expected[0], rtol=2e-3, atol=2e-3)
    assert features.strides == (4, 8, 16, 32)


def test_same_features_are_computed_once(cfg, tmp_path):
    first = compute_features(cfg, 'val', SUBJECT, tmp_path)
    written = _files(tmp_path)
    second = compute_features(cfg, 'val', SUBJECT, tmp_path)
    assert _files(tmp_path) == written and len(written) == 2
    assert torch.equal(first.level(1, 2), second.level(1, 2))


def test_other_weights_or_version_are_other_features(cfg, tmp_path, monkeypatch):
    compute_features(cfg, 'val', SUBJECT, tmp_path)
    compute_features(cfg, 'val', dataclasses.replace(SUBJECT, seed=1), tmp_path)
    monkeypatch.setattr(module, 'VERSION', module.VERSION + 1)
    compute_features(cfg, 'val', SUBJECT, tmp_path)
    assert len(_files(tmp_path)) == 6


@pytest.mark.parametrize('damage', ['truncated', 'changed', 'index'])
def test_damaged_features_are_computed_again(cfg, tmp_path, damage):
    expected = compute_features(cfg, 'val', SUBJECT, tmp_path).level(1, 3)
    path = next(tmp_path.glob('*.json' if damage == 'index' else '*.float16'))
    content = path.read_bytes()
    path.write_bytes(content[:-100] + (b'\x01' * 100 if damage == 'changed' else b''))
    assert torch.equal(compute_features(cfg, 'val', SUBJECT, tmp_path).level(1, 3), expected)


def test_too_small_a_disk_is_an_error_and_leaves_nothing(cfg, tmp_path, monkeypatch):
    usage = namedtuple('usage', 'total used free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(10, 0, 10))
    with pytest.raises(FeaturesError, match=r'need about \d+ bytes .* has 10 free'):
        compute_features(cfg, 'val', SUBJECT, tmp_path)
    assert not any(tmp_path.iterdir())


def test_values_beyond_float16_are_an_error_and_leave_nothing(cfg, tmp_path):
    weights = tmp_path / 'large.pth'
    torch.save({name: 1e3 * value for name, value in create_backbone('tiny_moat_0').state_dict().items()}, weights)
    with pytest.raises(FeaturesError, match='not finite in float16'):
        compute_features(cfg, 'val', Subject('tiny_moat_0', str(weights)), tmp_path / 'features')
    assert not any((tmp_path / 'features').iterdir())


def test_one_image_is_an_error(tmp_path):
    with pytest.raises(FeaturesError, match='has 1 image, expected at least 2'):
        compute_features(shapes_config('upernet', val=1), 'val', SUBJECT, tmp_path)
