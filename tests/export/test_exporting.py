"""Whole models as files: from a config and a checkpoint to results, and the errors a user sees."""

import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

from hybrid_backbones.datasets.scenes import draw_scene
from hybrid_backbones.engine.config import read_config
from hybrid_backbones.export import exporting
from hybrid_backbones.export.formats import FORMATS
from hybrid_backbones.export.programs import ExportError
from hybrid_backbones.export.runtime import DeployedModel

CONFIGS = Path(__file__).parents[2] / 'configs'


HEADS = {
    'FCNHead': dict(in_channels=32, in_index=3),
    'FPNHead': dict(in_channels=[8, 16, 24, 32], feature_strides=[4, 8, 16, 32]),
    'SegformerHead': dict(in_channels=[8, 16, 24, 32]),
    'UPerHead': dict(in_channels=[8, 16, 24, 32], pool_scales=(1, 2, 3, 6)),
}


def small_segmentor(head: str = 'FCNHead'):
    """A config of a segmentor that is quick to export."""
    cfg = read_config(CONFIGS / 'upernet_conv2former_n_shapes.py')
    cfg.model.backbone.update(arch=dict(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), kernel_size=3), layer_scale_init=1.0)
    cfg.model.auxiliary_head = None
    cfg.model.decode_head.pop('pool_scales')
    norm_cfg = dict(type='GN', num_groups=2)
    cfg.model.decode_head.update(HEADS[head], type=head, channels=8, norm_cfg=norm_cfg)
    if head != 'FCNHead':
        cfg.model.decode_head.in_index = [0, 1, 2, 3]
    return cfg


def checkpoint_of(cfg, folder: Path, **meta) -> Path:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    path = folder / 'weights.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """A segmentor as an ONNX file, what its JSON says, and its config and checkpoint."""
    folder = tmp_path_factory.mktemp('exported')
    cfg = small_segmentor()
    checkpoint = checkpoint_of(cfg, folder)
    meta = exporting.export_model(cfg, checkpoint, folder / 'model.onnx')
    return folder / 'model.onnx', meta, cfg, checkpoint


def test_a_file_is_right_and_says_what_it_is(exported):
    path, meta, cfg, _ = exported
    assert sorted(file.name for file in path.parent.iterdir()) == ['model.onnx', 'model.onnx.json', 'weights.pth']
    assert json.loads(path.with_name('model.onnx.json').read_text()) == json.loads(json.dumps(meta))
    assert meta['classes'] == list(cfg.metainfo.classes) and meta['input']['order'] == 'RGB'
    worst = meta['verification']['worst']
    assert worst['pixels'] == 150_403 and worst['other_class'] <= 5 and worst['logits'] < 1e-4
    assert len({tuple(batch['shape']) for batch in meta['verification']['batches']}) == 5
    labels = DeployedModel(path, threads=1)(np.random.default_rng(0).integers(0, 256, (100, 140, 3), np.uint8))[
        'labels'
    ]
    assert labels.shape == (100, 140) and labels.dtype == np.uint8 and len(np.unique(labels)) > 1


def test_metadata_are_in_the_file_too(exported):
    onnx = pytest.importorskip('onnx')
    path, meta, *_ = exported
    texts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(texts['classes']) == meta['classes']
    assert json.loads(texts['hybrid_backbones'])['checkpoint'] == meta['checkpoint']


def test_a_file_that_differs_is_not_left(exported, tmp_path, monkeypatch):
    _, _, cfg, checkpoint = exported
    plain = FORMATS['torch']

    def wrong(model, path):
        weight = next(name for name in model.rest.state_dict if name.endswith('conv_seg.weight'))
        model.rest.state_dict[weight].data *= 1.001
        return plain.write(model, path)

    monkeypatch.setitem(FORMATS, 'torch', replace(plain, write=wrong))
    with pytest.raises(ExportError, match=r'the file differs from PyTorch on images of \(1, 159, 159, 3\): logits'):
        exporting.export_model(cfg, checkpoint, tmp_path / 'model.pt2', 'torch')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'name, file_format',
    [
        ('model.pt2', 'torch'),
        pytest.param('model.onnx', 'onnx', marks=pytest.mark.slow),
        pytest.param('model.xml', 'openvino', marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_is_an_error_and_nothing_is_left(exported, tmp_path, name, file_format):
    _, _, cfg, checkpoint = exported
    (tmp_path / name).write_text('an earlier file')
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match='File too large'):
            exporting.export_model(cfg, checkpoint, tmp_path / name, file_format)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.read_text() for file in tmp_path.iterdir()] == ['an earlier file']


def test_classes_of_the_checkpoint_and_of_the_config_are_one(tmp_path):
    cfg = small_segmentor()
    named = list(reversed(cfg.metainfo.classes))
    checkpoint = checkpoint_of(cfg, tmp_path, dataset_meta=dict(classes=named))
    with pytest.raises(ValueError, match='the checkpoint was trained with the classes'):
        exporting.export_model(cfg, checkpoint, tmp_path / 'model.onnx')


@pytest.mark.parametrize(
    'change, said',
    [
        (lambda cfg: cfg.model.test_cfg.update(mode='slide', crop_size=(64, 64), stride=(32, 32)), "mode='slide'"),
        (lambda cfg: cfg.model.update(type='CascadeEncoderDecoder', num_stages=1), 'CascadeEncoderDecoder'),
    ],
)
def test_parts_that_are_not_exported_are_named(change, said, exported, tmp_path):
    cfg, checkpoint = small_segmentor(), exported[3]
    change(cfg)
    if cfg.model.type == 'CascadeEncoderDecoder':
        cfg.model.decode_head = [cfg.model.decode_head]
        checkpoint = checkpoint_of(cfg, tmp_path)
    with pytest.raises(ValueError, match=said):
        exporting.export_model(cfg, checkpoint, tmp_path / 'model.onnx')


def test_a_checkpoint_of_another_model(exported, tmp_path):
    cfg = small_segmentor()
    cfg.model.backbone.arch.dims = (16, 16, 24, 32)
    with pytest.raises(ValueError, match=r'weights\.pth'):
        exporting.export_model(cfg, exported[3], tmp_path / 'model.onnx')
    assert not list(tmp_path.iterdir())


def test_a_suffix_of_another_format(exported, tmp_path):
    with pytest.raises(ValueError, match=r'model.xml: a file of the format onnx ends in .onnx'):
        exporting.export_model(small_segmentor(), exported[3], tmp_path / 'model.xml')


def test_options_of_another_format(exported, tmp_path):
    with pytest.raises(ValueError, match='fp16=True: for the formats onnx and openvino, not for torch'):
        exporting.export_model(small_segmentor(), exported[3], tmp_path / 'model.pt2', 'torch', fp16=True)


@pytest.mark.slow
def test_a_picture_where_nothing_but_onnxruntime_is_installed(exported, tmp_path):
    path, *_ = exported
    python = tmp_path / 'env/bin/python'
    subprocess.run([sys.executable, '-m', 'venv', tmp_path / 'env'], check=True)
    subprocess.run([python, '-m', 'pip', 'install', '-q', 'onnxruntime', 'pillow'], check=True)
    subprocess.run([python, '-m', 'pip', 'install', '-q', '--no-deps', CONFIGS.parent], check=True)
    installed = subprocess.run([python, '-m', 'pip', 'list'], capture_output=True, text=True, check=True).stdout
    assert 'torch' not in installed and 'mm' not in installed
    Image.fromarray(draw_scene(160, 0, 0, 1).image).save(tmp_path / 'image.png')
    command = [python, '-m', 'hybrid_backbones.export.runtime', path, 'image.png', '-o', 'out.png']
    subprocess.run(command, cwd=tmp_path, check=True)
    with Image.open(tmp_path / 'out.png') as picture:
        assert picture.width == 160 and picture.height > 160


@pytest.mark.slow
@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('file_format', ['onnx', 'openvino', 'torch'])
def test_heads_and_formats(head, file_format, tmp_path):
    cfg = small_segmentor(head)
    checkpoint = checkpoint_of(cfg, tmp_path)
    path = tmp_path / f'model{FORMATS[file_format].suffix}'
    meta = exporting.export_model(cfg, checkpoint, path, file_format)
    assert meta['verification']['worst']['logits'] < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize('file_format, weights', [('onnx', 'model.onnx'), ('openvino', 'model.bin')])
def test_weights_in_float16_take_less(file_format, weights, tmp_path):
    cfg = read_config(CONFIGS / 'upernet_conv2former_n_shapes.py')
    checkpoint, path = checkpoint_of(cfg, tmp_path), tmp_path / f'model{FORMATS[file_format].suffix}'
    sizes = []
    for fp16 in (False, True):
        meta = exporting.export_model(cfg, checkpoint, path, file_format, fp16=fp16)
        assert meta['precision'] == ('float16' if fp16 else 'float32')
        sizes.append((tmp_path / weights).stat().st_size)
    assert sizes[1] < 0.6 * sizes[0]
