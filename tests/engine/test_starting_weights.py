"""A run has the weights that its config names before anything else, or says all along that it does without."""

import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from web_site import running_site

from hybrid_backbones import create_backbone
from hybrid_backbones.checkpoints import CheckpointError, published
from hybrid_backbones.checkpoints.errors import ByHandError
from hybrid_backbones.checkpoints.published import Family, Published
from hybrid_backbones.checkpoints.sources import Source
from hybrid_backbones.engine.starting_weights import (
    MissingWeightsHook,
    describe_weights,
    prepare_weights,
    recommended_weights,
)

ARCH = dict(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), kernel_size=3)


@pytest.fixture
def index(monkeypatch, tmp_path):
    """Puts one file of a source into an index of its own."""
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')

    def put(at: str, licence: str = 'MIT') -> Source:
        source = Source(at, file='tiny.pth')
        row = Published('tiny', 'conv2former_n', {}, 'shapes', 32, None, 10, 0, '', (source,), 'X', licence, '')
        monkeypatch.setattr(published, 'families', lambda: (Family('X', licence, '', '', (row,)),))
        return source

    return put


def config(**backbone) -> Config:
    backbone = dict(type='Conv2Former', arch=ARCH) | backbone
    return Config(dict(model=dict(backbone=backbone), work_dir='none'))


def pretrained(**backbone) -> Config:
    init_cfg = dict(type='Pretrained', checkpoint='hybrid://tiny')
    return config(init_cfg=init_cfg, norm_eval=True, frozen_stages=1, **backbone)


def assert_from_scratch(cfg: Config) -> None:
    assert 'init_cfg' not in cfg.model.backbone
    assert (cfg.model.backbone.norm_eval, cfg.model.backbone.frozen_stages) == (False, -1)
    assert cfg.sync_bn == 'torch'


def test_weights_that_are_there_are_kept(index, tmp_path):
    place = index('page:https://pan.baidu.com/s/x').place
    place.parent.mkdir(parents=True)
    torch.save(create_backbone('conv2former_n', arch=ARCH).state_dict(), place)
    cfg = pretrained()
    prepare_weights(cfg, required=True)
    assert cfg.model.backbone == pretrained().model.backbone
    assert 'custom_hooks' not in cfg


def test_weights_that_only_a_person_can_fetch_are_done_without(index, caplog):
    source = index('page:https://pan.baidu.com/s/x')
    cfg = pretrained()
    prepare_weights(cfg)
    assert_from_scratch(cfg)
    (hook,) = cfg.custom_hooks
    for part in ('hybrid://tiny', 'https://pan.baidu.com/s/x', str(source.place), 'from scratch'):
        assert part in hook['text']
    with pytest.raises(ByHandError, match='fetched by hand'):
        prepare_weights(pretrained(), required=True)


def test_the_warning_is_framed_and_repeated_at_validations(caplog):
    from mmengine.logging import MMLogger

    MMLogger.get_instance('weights').addHandler(caplog.handler)
    hook = MissingWeightsHook('no weights\nget them there')
    with caplog.at_level(logging.WARNING):
        hook.before_train(None)
        for iteration in (7, 8):
            hook.after_val_epoch(SimpleNamespace(iter=iteration), {})
    start, *validations = (record.getMessage() for record in caplog.records[-3:])
    assert start == '\n==============\nno weights\nget them there\n=============='
    assert validations == ['no weights (iteration 7)', 'no weights (iteration 8)']


def test_weights_that_cannot_be_downloaded_stop_the_run(index):
    with running_site() as site:
        url = site.url
    source = index(f'{url}/tiny.pth')
    with pytest.raises(CheckpointError) as error:
        prepare_weights(pretrained())
    for part in ('refused', str(source.place), '--from-scratch'):
        assert part in str(error.value)
    cfg = pretrained()
    prepare_weights(cfg, from_scratch=True)
    assert_from_scratch(cfg)
    assert 'custom_hooks' not in cfg


def test_a_path_that_does_not_exist_stops_the_run(tmp_path):
    with pytest.raises(CheckpointError, match=r'no checkpoint at .*nowhere\.pth'):
        prepare_weights(config(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'nowhere.pth'))))


def test_statistics_that_nothing_sets_are_never_kept():
    cfg = config(norm_eval=True)
    prepare_weights(cfg)
    assert cfg.model.backbone.norm_eval is False


@pytest.mark.parametrize('resume', [True, False])
def test_a_whole_model_needs_no_other_weights(index, tmp_path, resume):
    index('page:https://pan.baidu.com/s/x')
    cfg = pretrained()
    cfg.update(load_from='epoch_1.pth', resume=resume)
    prepare_weights(cfg, required=True)
    assert 'init_cfg' not in cfg.model.backbone
    assert cfg.model.backbone.norm_eval


def test_a_run_from_scratch_is_resumed_as_one(index, tmp_path):
    place = index('page:https://pan.baidu.com/s/x').place
    started = pretrained()
    prepare_weights(started)
    started.dump(tmp_path / 'mine.py')
    place.parent.mkdir(parents=True)
    place.write_bytes(b'')  # it has arrived since
    cfg = Config(dict(pretrained()), filename=str(tmp_path / 'mine.py'))
    cfg.update(load_from='epoch_1.pth', resume=True, work_dir=str(tmp_path))
    prepare_weights(cfg)
    assert_from_scratch(cfg)


def test_a_backbone_of_others_is_left_alone():
    cfg = Config(dict(model=dict(backbone=dict(type='mmdet.ResNet', norm_eval=True))))
    prepare_weights(cfg)
    assert cfg.model.backbone.norm_eval
    with pytest.raises(ValueError, match='one of ours'):
        prepare_weights(cfg, from_scratch=True)


def test_recommendations_name_the_licence(index):
    assert recommended_weights('cvt_13') == 'hybrid://cvt_13_in1k'
    assert recommended_weights('coatnet_0') is None
    index('page:https://pan.baidu.com/s/x', licence='CC-BY-NC-4.0')
    assert describe_weights('hybrid://tiny') == 'hybrid://tiny (shapes, CC-BY-NC-4.0, which restricts its use)'
    assert describe_weights('file.pth') == 'file.pth'
