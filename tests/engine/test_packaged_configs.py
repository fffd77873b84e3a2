"""Configs of this package by name, in every place where MMEngine takes those of mmdet."""

import pytest
from mmengine.config import Config
from mmengine.hub import get_config

from hybrid_backbones.engine.config import load_config, read_config
from hybrid_backbones.engine.packaged_configs import CONFIGS

NAME = 'maskrcnn_conv2former_n_shapes.py'


def test_as_a_base_from_any_folder(tmp_path):
    """Built as the file itself is: without a scope, in which mmdet's classes would not be found."""
    path = tmp_path / 'mine.py'
    path.write_text(f"_base_ = 'hybrid_backbones::{NAME}'\nwork_dir = 'mine'\n")
    cfg = Config.fromfile(path).to_dict()
    assert cfg.pop('work_dir') == 'mine'
    assert cfg == Config.fromfile(CONFIGS / NAME).to_dict()


def test_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = Config.fromfile(CONFIGS / NAME).to_dict()
    assert get_config(f'hybrid_backbones::{NAME}').to_dict() == expected
    assert read_config(f'hybrid_backbones::{NAME}').to_dict() == expected


def test_work_directory_is_called_like_the_config():
    cfg = load_config('hybrid_backbones::maskrcnn_conv2former_t_coco.py')
    assert cfg.work_dir == 'work_dirs/maskrcnn_conv2former_t_coco'


def test_unknown_names(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no config .*_deit_z_coco\.py; there are .*maskrcnn_deit_s_coco\.py'):
        read_config('hybrid_backbones::maskrcnn_deit_z_coco.py')
    path = tmp_path / 'mine.py'
    path.write_text("_base_ = 'hybrid_backbones::upernet_cvt_31_ade20k.py'\n")
    with pytest.raises(ValueError, match=r'FileNotFoundError: no config .*upernet_cvt_21_ade20k\.py'):
        read_config(path)
