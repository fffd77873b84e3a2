"""A published detector is what `load_from` and tools/test.py load, under its name in the index."""

import re
from types import SimpleNamespace

import pytest
import torch
from engine.models import LAYER_NORM_NANO, TinyDetector

from hybrid_backbones import create_backbone
from hybrid_backbones.checkpoints import CheckpointError
from hybrid_backbones.checkpoints.errors import ByHandError
from hybrid_backbones.checkpoints.published import find_published
from hybrid_backbones.engine.model_checks import check_state_dict
from hybrid_backbones.engine.published_models import PublishedNamesHook, local_model


def detector() -> TinyDetector:
    return TinyDetector(create_backbone('hornet_t', arch=LAYER_NORM_NANO['arch']))


@pytest.mark.parametrize('nested', [True, False])
@pytest.mark.parametrize('wrapper', ['', 'module.'])
def test_the_hook_renames_before_anything_compares(nested, wrapper):
    model, source = detector(), detector()
    theirs = {wrapper + re.sub(r'out_norms\.', 'norm', key): value for key, value in source.state_dict().items()}
    checkpoint = dict(state_dict=theirs, meta={}) if nested else theirs
    PublishedNamesHook().after_load_checkpoint(SimpleNamespace(model=model, _load_from='file'), checkpoint)
    state = checkpoint.get('state_dict', checkpoint)
    check_state_dict(model, state, 'file')
    model.load_state_dict(state)
    torch.testing.assert_close(model.backbone.out_norms['3'].weight, source.backbone.out_norms['3'].weight)


def test_the_hook_refuses_output_norms_at_their_start():
    state = {key: value for key, value in detector().state_dict().items() if '.out_norms.' not in key}
    with pytest.raises(CheckpointError, match=r'^file has no out_norms\.0\.weight'):
        PublishedNamesHook().after_load_checkpoint(SimpleNamespace(model=detector(), _load_from='file'), state)


def test_names_of_the_index_are_resolved(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path))
    assert local_model('work_dirs/epoch_1.pth') == 'work_dirs/epoch_1.pth'
    with pytest.raises(ByHandError, match=r'drive\.google\.com(.|\n)*put the file here'):
        local_model('hybrid://cascade_replknet_31b_coco')
    place = find_published('cascade_replknet_31b_coco').path
    place.parent.mkdir(parents=True)
    torch.save({}, place)
    assert local_model('hybrid://cascade_replknet_31b_coco') == str(place)
    with pytest.raises(CheckpointError, match=r'no published file hybrid://cascade_slakt_coco; .*cascade_slak_t_coco'):
        local_model('hybrid://cascade_slakt_coco')
