"""Configs for converted data: they have what was found, and their data pass the checks."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from datasets import exports
from datasets.exports import NAMES, write_coco, write_masks, write_roboflow_coco, write_text, write_yolo

from hybrid_backbones.datasets.checks import DataView, examine
from hybrid_backbones.engine.config import load_config
from hybrid_backbones.swap.own_data import plan_training

ROOT = Path(__file__).parents[2]


@pytest.fixture
def new_config(tmp_path, monkeypatch):
    """`tools/new_config.py` in this process and in an empty folder, `raw` beside it; it gives what was written."""
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')

    def run(*arguments: str, out: str = 'mine.py'):
        tool = str(ROOT / 'tools' / 'new_config.py')
        monkeypatch.setattr(sys, 'argv', [tool, '--data', '../raw', '-o', out, *arguments])
        runpy.run_path(tool, run_name='__main__')
        cfg = load_config(out, work_dir='work')
        report = examine(DataView(cfg))
        assert not [finding for finding in report.findings if finding.severity != 'note'], report.text()
        return cfg

    return run


def test_masks_and_a_test_split(tmp_path, new_config):
    write_roboflow_coco(tmp_path / 'raw')
    cfg = new_config('--task', 'detection', '--backbone', 'conv2former_n')
    assert cfg.model.type == 'MaskRCNN' and cfg.model.roi_head.mask_head.num_classes == 2
    assert cfg.model.backbone == dict(type='Conv2Former', arch='nano', layer_scale_init=1.0)
    assert cfg.metainfo.classes == ('cat', 'dog')
    assert cfg.test_dataloader.dataset.ann_file == 'annotations/instances_test2017.json'
    assert cfg.test_evaluator.ann_file == 'data/mine/annotations/instances_test2017.json'
    assert cfg.optim_wrapper.paramwise_cfg.decay_rate == 1.0


def test_boxes_and_pretrained_weights(tmp_path, new_config):
    write_yolo(tmp_path / 'raw')
    options = ['--pretrained', '--batch-size', '2', '--size', '96', '--iterations', '50']
    cfg = new_config('--task', 'detection', '--backbone', 'timm_resnet_50', *options)
    assert cfg.model.type == 'FasterRCNN' and cfg.model.roi_head.mask_head is None
    assert cfg.model.roi_head.bbox_head.num_classes == 2
    assert cfg.model.backbone.init_cfg.checkpoint == 'hybrid://timm_resnet_50_in1k' and cfg.model.backbone.norm_eval
    assert cfg.val_evaluator.metric == 'bbox' and cfg.default_hooks.checkpoint.save_best == 'coco/bbox_mAP'
    assert cfg.train_cfg.max_iters == 50 and cfg.param_scheduler[-1]['end'] == 50
    assert cfg.test_pipeline[1]['scale'] == (160, 96) and cfg.train_dataloader.batch_size == 2
    assert cfg.optim_wrapper.optimizer.lr == 7.1e-5 and cfg.optim_wrapper.paramwise_cfg.decay_rate == 0.95


def test_label_maps_and_names_of_any_letters(tmp_path, new_config):
    write_masks(tmp_path / 'raw')
    classes = ['Straße', '"Haus"', 'car park']
    cfg = new_config('--task', 'segmentation', '--backbone', 'cvt_13', '--classes', *classes, out='straßen.py')
    assert cfg.metainfo.classes == tuple(classes)
    assert cfg.model.decode_head.num_classes == cfg.model.auxiliary_head.num_classes == 3
    assert cfg.model.data_preprocessor.size == (64, 64) and cfg.model.test_cfg.mode == 'whole'
    assert cfg.train_dataloader.dataset.type == 'BaseSegDataset'


def rejected(arguments: list[str], monkeypatch, capsys) -> str:
    tool = str(ROOT / 'tools' / 'new_config.py')
    monkeypatch.setattr(sys, 'argv', [tool, *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(tool, run_name='__main__')
    assert end.value.code not in (0, None)
    return f'{end.value.code} {capsys.readouterr().err}'


@pytest.mark.parametrize(
    'change, message',
    [
        (['--backbone', 'convformer_n'], 'convformer_n'),
        (['--backbone', 'coatnet_0', '--pretrained'], 'no weights of coatnet_0 are published'),
        (['--data', 'nowhere'], 'no folder nowhere'),
        (['-o', 'there.py'], 'there.py exists'),
        (['--data-out', 'there'], 'there exists'),
        (['-o', 'mine.yaml'], 'NAME.py'),
        (['--batch-size', '0'], '--batch-size 0'),
        (['--val-share', '1'], '--val-share 1'),
        (['--task', 'segmentation', '--layout', 'voc'], 'not of the layout voc'),
        (['--classes', 'bird'], 'the folder has cat, dog'),
    ],
)
def test_bad_arguments_leave_nothing_behind(tmp_path, monkeypatch, capsys, change, message):
    monkeypatch.chdir(tmp_path)
    write_coco(Path('raw'))
    Path('there.py').touch()
    Path('there').mkdir()
    before = sorted(tmp_path.rglob('*'))
    given = ['--data', 'raw', '--task', 'detection', '--backbone', 'cvt_13', '-o', 'mine.py', *change]
    assert message in rejected(given, monkeypatch, capsys)
    assert sorted(tmp_path.rglob('*')) == before


def test_a_config_that_cannot_be_written_leaves_no_data(tmp_path, monkeypatch, capsys):
    """A backbone without a map of stride 32 fits no detector."""
    monkeypatch.chdir(tmp_path)
    write_text(Path('raw') / 'all.json', json.dumps(exports.coco_content(range(10))))
    for i, name in enumerate(NAMES):
        exports.write_image(Path('raw') / f'{name}.jpg', i)
    given = ['--data', 'raw', '--task', 'detection', '--backbone', 'botnet_s1_50', '-o', 'mine.py', '--data-out', 'x']
    assert 'botnet_s1_50 cannot be put into' in rejected(given, monkeypatch, capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['raw']


@pytest.mark.parametrize(
    'images, pretrained, iterations',
    [(10, True, 1000), (367, True, 4590), (4800, True, 60_000), (10_000, True, 60_000), (40_000, True, 120_000),
     (367, False, 13_770)],
)  # fmt: skip
def test_schedule_by_the_number_of_images(images, pretrained, iterations):
    assert plan_training('detection', [(640, 480)] * images, pretrained).iterations == iterations


def test_size_and_learning_rate():
    sizes = [(640, 480), (1000, 3000), (500, 400)]
    assert plan_training('detection', sizes, True).size == 480
    assert plan_training('detection', [(3000, 2000)] * 4, True).size == 800
    assert plan_training('segmentation', [(3000, 2000)] * 4, True).size == 1024
    assert plan_training('detection', [(90, 60)] * 4, True).size == 320
    assert plan_training('detection', sizes * 10, True, batch=16).lr == 2e-4
    assert plan_training('detection', sizes * 10, True, batch=4).lr == 1e-4
    assert plan_training('detection', sizes * 10, False, batch=4).lr == 4e-4
