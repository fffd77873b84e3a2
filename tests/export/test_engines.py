"""Engines side by side: who runs, how ratios are taken, whether results are held to PyTorch's, and int8."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_detectors
import torch
from PIL import Image
from torch import nn

from hybrid_backbones.engine.config import load_config, read_config
from hybrid_backbones.export import engines
from hybrid_backbones.export.engines import EngineRow, compare_engines, markdown, records
from hybrid_backbones.export.evaluation import TestSplit
from hybrid_backbones.export.exporting import is_exported
from hybrid_backbones.export.input_rule import read_input_rule
from hybrid_backbones.export.preprocessing import Preprocessing
from hybrid_backbones.export.quantization import quantize
from hybrid_backbones.export.runtime import DeployedModel, read_image
from hybrid_backbones.export.timed_model import TimedModel, at_size
from hybrid_backbones.layers.fast_linear import FastLinear

pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
ROOT = Path(__file__).parents[2]
SIZE = 64, 96


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Configs of a segmentor that exports in seconds and of a small detector, and images for calibration."""
    folder = tmp_path_factory.mktemp('engines')
    cfg = read_config(ROOT / 'configs/upernet_conv2former_n_shapes.py')
    one_stage = dict(num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,))
    cfg.model.backbone = dict(type='ResNet', depth=18, base_channels=8, stem_channels=8, **one_stage)
    cfg.model.auxiliary_head = None
    cfg.model.decode_head.pop('pool_scales')
    cfg.model.decode_head.update(type='FCNHead', in_channels=8, in_index=0, channels=8)
    cfg.dump(folder / 'segmentor.py')
    cfg = read_config(ROOT / 'configs' / small_detectors.DETECTORS['mask_rcnn'])
    cfg.model = small_detectors.config('mask_rcnn')
    cfg.dump(folder / 'detector.py')
    (folder / 'images').mkdir()
    random = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(random.integers(0, 256, (*SIZE, 3), np.uint8)).save(folder / f'images/{index}.png')
    return folder


@pytest.fixture(scope='module')
def segmentor(folder):
    return TimedModel(str(folder / 'segmentor.py'), None, SIZE)


def test_rows_have_seconds_ratios_and_agreement(segmentor, folder):
    rows = compare_engines(segmentor, folder, threads=1, engines=['onnxruntime'], rounds=3)
    assert [row.engine for row in rows] == ['eager', 'onnxruntime']
    for row in rows:
        assert row.missing is None and len(row.seconds) == 3
        assert row.agreement['pixels'] == SIZE[0] * SIZE[1] and row.agreement['logits'] < 1e-4
    table = markdown(rows).splitlines()
    assert len(table) == 4 and '| eager |' in table[2] and '| 1.00 |' in table[2] and ' of 6144 pixels |' in table[3]
    assert json.loads(json.dumps(records(rows)))[1]['ratio'] == rows[1].ratio(rows[0])


def test_a_file_is_exported_once_and_again_for_other_weights(segmentor, folder):
    path = segmentor.export(folder)
    written = path.stat().st_mtime_ns
    assert segmentor.export(folder) == path and path.stat().st_mtime_ns == written
    assert is_exported(path, segmentor.cfg, segmentor.model)
    other = TimedModel(segmentor.name, None, SIZE)
    assert is_exported(path, other.cfg, other.model)  # random weights are the same each time
    nn.init.ones_(next(other.model.parameters()))
    assert not is_exported(path, other.cfg, other.model)


@pytest.mark.parametrize('keep_ratio', [False, True])
@pytest.mark.parametrize('size', [(64, 96), (96, 64)])
def test_the_model_takes_the_image_at_its_size(size, keep_ratio):
    cfg = read_config(ROOT / 'configs' / small_detectors.DETECTORS['mask_rcnn'])
    cfg.test_dataloader.dataset.pipeline[1] = dict(type='Resize', scale=(1333, 800), keep_ratio=keep_ratio)
    rule = read_input_rule(at_size(cfg, size))
    inputs, resized, _ = Preprocessing(rule)(torch.zeros(1, *size, 3, dtype=torch.uint8))
    assert tuple(inputs.shape[2:]) == tuple(resized.tolist()) == size
    assert read_input_rule(cfg).scale == (1333, 800)


def test_eager_is_fused_with_fast_linear_layers_and_the_truth_is_not(folder):
    timed_model = TimedModel(str(folder / 'detector.py'), None, SIZE)
    (eager,) = compare_engines(timed_model, folder, threads=1, engines=['eager'], rounds=1)
    assert eager.agreement['detections'] > 10 and eager.agreement['missing'] == 0 and eager.agreement['box'] < 0.01
    classes = [{type(module) for module in model.modules()} for model in (timed_model.model, timed_model.fused)]
    assert FastLinear not in classes[0] and FastLinear in classes[1]
    names = [set(model.backbone.state_dict()) for model in (timed_model.model, timed_model.fused.model)]
    assert names[0] != names[1]


def test_weights_and_image_are_those_that_are_given(segmentor, folder):
    torch.save(dict(state_dict={k: v + 0.01 for k, v in segmentor.model.state_dict().items()}), folder / 'weights.pth')
    given = TimedModel(segmentor.name, folder / 'weights.pth', SIZE, folder / 'images/1.png')
    first = next(given.model.parameters())
    torch.testing.assert_close(first, next(segmentor.model.parameters()) + 0.01)
    assert np.array_equal(given.image, read_image(folder / 'images/1.png'))
    scene = TimedModel(segmentor.name, folder / 'weights.pth', SIZE).image
    assert scene.shape == (*SIZE, 3) and not np.array_equal(scene, segmentor.image)
    (eager,) = compare_engines(given, folder, threads=1, engines=['eager'], rounds=1)
    assert eager.agreement['logits'] < 1e-4 and eager.seconds


def test_an_engine_that_differs_is_seen_and_one_that_fails_is_a_row(segmentor, folder, monkeypatch):
    # bf16 is emulated where the CPU lacks it.
    monkeypatch.setattr(engines, 'bf16_instructions', lambda: 'any')
    _, bf16 = compare_engines(segmentor, folder, threads=1, engines=['eager-bf16'], rounds=1)
    assert 1e-4 < bf16.agreement['logits'] < 0.1 and bf16.seconds
    monkeypatch.setattr(engines, 'bf16_instructions', lambda: '')
    base, bf16 = compare_engines(segmentor, folder, threads=1, engines=['eager-bf16'], rounds=1)
    assert base.seconds and not bf16.seconds and bf16.missing == 'this CPU has no bf16 instructions'
    assert markdown([base, bf16]).splitlines()[-1].endswith('|  |  | this CPU has no bf16 instructions |')


def test_a_ratio_is_the_median_of_the_rounds(segmentor):
    slow, fast = (EngineRow('a.py', name, SIZE, 1, list(s)) for name, s in (('eager', (2, 9, 4)), ('x', (1, 1, 8))))
    assert fast.ratio(slow) == 2 and fast.median() == 1 and fast.ratio(fast) == 1


def test_metrics_of_every_engine(folder):
    timed_model = TimedModel(str(folder / 'segmentor.py'), None, (160, 160))
    split = TestSplit(load_config(folder / 'segmentor.py', options={'test_dataloader.dataset.indices': 3}))
    rows = compare_engines(timed_model, folder, threads=1, engines=['onnxruntime'], split=split, rounds=1)
    assert rows[1].metrics == pytest.approx(rows[0].metrics, abs=0.01) and 0 < rows[0].metrics['mIoU'] < 100
    assert f'mIoU {rows[1].metrics["mIoU"]:.4g}' in markdown(rows)


def test_what_is_not_to_be_had_is_named_before_anything_runs(segmentor, folder):
    with pytest.raises(ValueError, match=r'no engine onnxruntime-int8; .*with images for calibration onnxruntime-int8'):
        compare_engines(segmentor, folder, threads=1, engines=['onnxruntime-int8'])
    with pytest.raises(FileNotFoundError, match='no image at'):
        compare_engines(segmentor, folder, threads=1, calibration=folder / 'nothing')


def test_int8(segmentor, folder):
    _, int8 = compare_engines(
        segmentor, folder, threads=1, engines=['onnxruntime-int8'], calibration=folder / 'images', rounds=1
    )
    assert int8.missing is None and 1e-4 < int8.agreement['logits'] < 0.2
    path = segmentor.quantize(folder, folder / 'images')
    meta, written = DeployedModel(path, threads=1).meta, path.stat().st_mtime_ns
    assert meta['precision'] == 'int8' and sorted(meta['calibration']['images']) == ['0.png', '1.png', '2.png']
    assert segmentor.quantize(folder, folder / 'images') == path and path.stat().st_mtime_ns == written
    weights = {tensor.data_type for tensor in pytest.importorskip('onnx').load(path).graph.initializer}
    assert pytest.importorskip('onnx').TensorProto.INT8 in weights
    with pytest.raises(ValueError, match='ONNX files in float32 are quantized'):
        quantize(path, folder / 'images', folder / 'again.onnx')


@pytest.mark.slow
def test_all_engines_of_a_detector_by_the_tool(folder, tmp_path):
    command = [sys.executable, ROOT / 'tools/benchmark_engines.py', folder / 'detector.py', '--size', '96', '128']
    out = ['--rounds', '2', '--int8', folder / 'images', '-o', tmp_path / 'new' / 'engines']
    subprocess.run([*command, *out], check=True, cwd=ROOT)
    content = json.loads((tmp_path / 'new/engines.json').read_text())
    rows = {row['engine']: row for row in content['rows']}
    assert list(rows) == [*engines.ENGINES, *engines.INT8_ENGINES] and content['about']['processor']
    for name in ('eager', 'compiled', 'onnxruntime', 'openvino'):
        agreement = rows[name]['agreement']
        assert agreement['box'] <= 0.01 and agreement['score'] <= 1e-4 and agreement['mask_iou'] > 0.999, name
        assert agreement['missing'] == 0 and agreement['detections'] > 10 and len(rows[name]['seconds']) == 2, name
    for name in engines.INT8_ENGINES:
        assert len(rows[name]['seconds']) == 2, rows[name]['missing']
    assert (tmp_path / 'new/engines.md').read_text().count('\n') == 2 + len(rows)
