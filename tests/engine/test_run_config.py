"""What the command lines make of a config."""

import argparse
import os
import tempfile
from pathlib import Path

import pytest
from mmengine.config import Config, DictAction

from hybrid_backbones.engine.config import (
    check_work_dir,
    load_config,
    use_amp,
    use_auto_scale_lr,
    use_resume,
    use_total_batch,
)
from hybrid_backbones.engine.run import use_tta
from hybrid_backbones.engine.safeguards import HOOKS

CONFIGS = Path(__file__).parents[2] / 'configs'
DET = CONFIGS / 'maskrcnn_conv2former_n_coco.py'
SEG = CONFIGS / 'upernet_conv2former_n_ade20k.py'


def test_data_root_moves_every_path(tmp_path):
    cfg = load_config(DET, data_root=f'{tmp_path}/')
    for split in ('train', 'val', 'test'):
        assert cfg[f'{split}_dataloader'].dataset.data_root.rstrip('/') == str(tmp_path)
    assert cfg.val_evaluator.ann_file == cfg.test_evaluator.ann_file
    assert cfg.val_evaluator.ann_file == f'{tmp_path}/annotations/instances_val2017.json'
    assert 'data/coco' not in str(cfg.to_dict())
    cfg = load_config(SEG, data_root=str(tmp_path))
    assert cfg.train_dataloader.dataset.data_root == cfg.test_dataloader.dataset.data_root == str(tmp_path)


def test_data_root_of_several_is_refused(tmp_path):
    path = tmp_path / 'two.py'
    path.write_text("train_dataloader = dict(dataset=dict(datasets=[dict(data_root='a'), dict(data_root='b/')]))")
    with pytest.raises(ValueError, match='this one has 2: a, b'):
        load_config(path, data_root='c')


def test_work_dir(tmp_path):
    assert load_config(DET).work_dir == 'work_dirs/maskrcnn_conv2former_n_coco'
    assert load_config(DET, work_dir=str(tmp_path)).work_dir == str(tmp_path)
    check_work_dir(str(tmp_path / 'new' / 'folder'))
    assert list((tmp_path / 'new' / 'folder').iterdir()) == []


@pytest.mark.parametrize('kind', ['below_a_file', 'read_only'])
def test_unwritable_work_dir(kind):
    with tempfile.TemporaryDirectory() as parent:  # pytest's own is closed to the user that root becomes below
        check_unwritable(Path(parent), kind)


def check_unwritable(tmp_path, kind):
    if kind == 'below_a_file':
        (tmp_path / 'file').touch()
        folder = tmp_path / 'file' / 'work'
    else:
        tmp_path.chmod(0o755)
        folder = tmp_path / 'locked'
        folder.mkdir(mode=0o555)
    user = os.geteuid()
    try:
        if user == 0:  # root writes anywhere
            os.seteuid(65534)
        with pytest.raises(PermissionError, match=f'cannot write to the work directory {folder}.*--work-dir'):
            check_work_dir(str(folder))
    finally:
        os.seteuid(user)


def test_absent_config():
    with pytest.raises(FileNotFoundError, match=r'no config nowhere\.py'):
        load_config('nowhere.py')


@pytest.mark.parametrize('inherited', [False, True], ids=['own', 'inherited'])
@pytest.mark.parametrize(
    'text, where',
    [
        ('a = 1\nb = dict(\n    c=1,\n    d 2)\n', r', line 4: SyntaxError: invalid syntax'),
        ('a = 1\n\nb = dict(c=misspelt)\n', r", line 3: NameError: name 'misspelt' is not defined"),
        ("_base_ = ['absent.py']\n", r': FileNotFoundError: .*absent\.py'),
        ('from mmengine.config import read_base\nwith read_base():\n    from .b import *\nx =\n', ', line 4: Syntax'),
    ],
    ids=['syntax', 'name', 'base', 'lazy'],
)
def test_unreadable_config_is_named_with_its_line(tmp_path, text, where, inherited):
    path = tmp_path / 'broken.py'
    path.write_text(text)
    if inherited:
        (tmp_path / 'config.py').write_text("_base_ = './broken.py'\n")
    broken = tmp_path / 'absent.py' if 'absent' in text else path
    with pytest.raises(ValueError, match=f'cannot read the config {broken}{where}'):
        load_config(tmp_path / 'config.py' if inherited else path)


def test_other_formats_are_named_with_their_line(tmp_path):
    (tmp_path / 'broken.json').write_text('{"a": 1,\n "b": }\n')
    with pytest.raises(ValueError, match=r'broken\.json, line 2: JSONDecodeError'):
        load_config(tmp_path / 'broken.json')


@pytest.mark.parametrize('name', ['mask-rcnn_r50_fpn_1x_coco', 'configs'])
def test_safeguards_are_added_to_any_config(name, tmp_path):
    """mmdet's own config and ours end with the same safeguards, each once."""
    path = tmp_path / 'upstream.py'
    path.write_text(f"_base_ = 'mmdet::mask_rcnn/{name}.py'" if name != 'configs' else f"_base_ = '{DET}'")
    cfg = load_config(path, options={'train_dataloader.drop_last': True} if name != 'configs' else None)
    assert cfg.default_hooks.checkpoint.type == 'SafeCheckpointHook'
    hooks = ['CheckFiniteLossHook', 'FixedStatisticsHook', 'NameBatchHook', 'PublishedNamesHook', 'ReproducibleRunHook']
    assert sorted(hook['type'] for hook in cfg.custom_hooks) == hooks
    sampler = cfg.train_dataloader.batch_sampler
    assert sampler.type == 'ResumableBatchSampler'
    assert sampler.batch_sampler.type == 'AspectRatioBatchSampler'
    assert 'drop_last' not in cfg.train_dataloader
    assert sampler.get('drop_last', False) == (name != 'configs')
    for split in ('train', 'val', 'test'):
        pipeline = cfg[f'{split}_dataloader'].dataset.pipeline
        loading = [transform['transform']['type'] for transform in pipeline if 'transform' in transform]
        assert loading == ['LoadImageFromFile', 'LoadAnnotations']
        assert not any(transform['type'].startswith('Load') and 'transform' not in transform for transform in pipeline)


def cfg_options(*words: str) -> dict:
    """As tools/train.py parses them."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args(['--cfg-options', *words]).cfg_options


@pytest.mark.parametrize(
    ('option', 'key'),
    [
        ('custom_hooks=[]', 'custom_hooks'),
        ('custom_hooks.0.enabled=False', 'ReproducibleRunHook'),
        ('custom_hooks.1.enabled=False', 'CheckFiniteLossHook'),
        ('custom_hooks.2.enabled=False', 'FixedStatisticsHook'),
        ('custom_hooks.3.enabled=False', 'PublishedNamesHook'),
        ('custom_hooks.4.enabled=False', 'NameBatchHook'),
        ('default_hooks.checkpoint.type=CheckpointHook', 'SafeCheckpointHook'),
        ('train_dataloader.batch_sampler=None', 'ResumableBatchSampler'),
        ('explain_loading=False', 'LoadFromFileOrExplain'),
    ],
)
def test_each_safeguard_can_be_switched_off(option, key):
    before, cfg = load_config(DET), load_config(DET, options=cfg_options(option))
    if key == 'custom_hooks':
        assert before.custom_hooks and cfg.custom_hooks == []
        return
    assert f"'{key}'" in str(before.to_dict())
    assert f"'{key}'" not in str(cfg.to_dict())
    assert len(cfg.custom_hooks) == len(before.custom_hooks) - option.startswith('custom_hooks')


def test_options_reach_the_transforms_that_read_files():
    cfg = load_config(DET, options=cfg_options('train_dataloader.dataset.pipeline.0.to_float32=True'))
    assert cfg.train_dataloader.dataset.pipeline[0]['transform']['to_float32'] is True


def test_cpu_runs_report_more_often(monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    assert load_config(DET).default_hooks.logger.interval == 10
    assert load_config(DET, options={'default_hooks.logger.interval': 3}).default_hooks.logger.interval == 3
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    assert load_config(DET).default_hooks.logger.interval == 50


def test_amp():
    cfg = load_config(DET)
    use_amp(cfg, 'fp16')
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert (cfg.optim_wrapper.dtype, cfg.optim_wrapper.loss_scale) == ('float16', 'dynamic')
    use_amp(cfg, 'bf16')
    assert (cfg.optim_wrapper.dtype, cfg.optim_wrapper.loss_scale) == ('bfloat16', dict(enabled=False))
    use_amp(cfg, 'fp32')
    assert cfg.optim_wrapper.type == 'OptimWrapper' and not cfg.optim_wrapper.keys() & {'dtype', 'loss_scale'}
    with pytest.raises(ValueError, match='--amp int8: expected one of auto, bf16, fp16'):
        use_amp(cfg, 'int8')
    cfg.optim_wrapper.type = 'DeepSpeedOptimWrapper'
    with pytest.raises(ValueError, match='this config has DeepSpeedOptimWrapper'):
        use_amp(cfg, 'bf16')


def test_total_batch(monkeypatch):
    def config(launcher: str) -> Config:
        return Config(dict(launcher=launcher, train_dataloader=dict(batch_size=2)))

    use_total_batch(cfg := config('none'), 6)
    assert cfg.train_dataloader.batch_size == 6
    for launcher, name in (('pytorch', 'WORLD_SIZE'), ('slurm', 'SLURM_NTASKS'), ('mpi', 'OMPI_COMM_WORLD_SIZE')):
        with monkeypatch.context() as patch:
            patch.setenv(name, '4')
            use_total_batch(cfg := config(launcher), 16)
            assert cfg.train_dataloader.batch_size == 4
            for total, nearest in ((6, 8), (1, 4), (0, 4)):
                expected = rf'--total-batch {total} cannot be shared evenly by 4 processes.*such as {nearest},'
                with pytest.raises(ValueError, match=expected):
                    use_total_batch(cfg, total)


def test_auto_scale_lr():
    for path in (DET, SEG):
        cfg = load_config(path)
        assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=16)
        use_auto_scale_lr(cfg)
        assert cfg.auto_scale_lr.enable
    with pytest.raises(ValueError, match='base_batch_size'):
        use_auto_scale_lr(Config(dict()))


def test_resume(tmp_path):
    cfg = load_config(DET, work_dir=str(tmp_path))
    assert 'nothing to resume' in use_resume(cfg, 'auto')
    assert not cfg.resume
    with pytest.raises(FileNotFoundError, match='no such checkpoint'):
        use_resume(cfg, str(tmp_path / 'epoch_1.pth'))
    (tmp_path / 'epoch_1.pth').touch()
    assert 'nothing to resume' in use_resume(cfg, 'auto')  # it is empty
    use_resume(cfg, str(tmp_path / 'epoch_1.pth'))
    assert cfg.resume and cfg.load_from == str(tmp_path / 'epoch_1.pth')


def test_tta_leaves_masks_out():
    cfg = load_config(DET)
    assert use_tta(cfg) == ('roi_head.mask_head.',)
    assert cfg.model.type == 'DetTTAModel'
    assert cfg.model.module.roi_head.mask_head is None
    assert cfg.test_evaluator.metric == 'bbox'
    assert cfg.test_dataloader.dataset.pipeline[-1].type == 'TestTimeAug'
    cfg = load_config(SEG)
    assert use_tta(cfg) == ()
    assert cfg.model.type == 'SegTTAModel'
    cfg.pop('tta_pipeline')
    with pytest.raises(ValueError, match='tta_pipeline'):
        use_tta(cfg)


LAZY = """
from mmengine.dataset import DefaultSampler
from mmengine.hooks import CheckpointHook, LoggerHook
from mmengine.optim import OptimWrapper
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset

from hybrid_backbones.engine.hooks import CheckFiniteLossHook

model = dict(type='RetinaNet')
dataset = dict(type=CocoDataset, data_root='data/coco/', pipeline=[dict(type=LoadImageFromFile)])
train_dataloader = dict(sampler=dict(type=DefaultSampler), dataset=dataset)
default_hooks = dict(checkpoint=dict(type=CheckpointHook, interval=2), logger=dict(type=LoggerHook))
custom_hooks = [dict(type=CheckFiniteLossHook)]
optim_wrapper = dict(type=OptimWrapper)
"""


def test_configs_in_pure_python_get_the_same(tmp_path):
    """Their types are classes; hooks were missing, or there twice."""
    path = tmp_path / 'lazy.py'
    path.write_text(LAZY)
    cfg = load_config(path, data_root='elsewhere')
    assert cfg.default_hooks.checkpoint.type == 'SafeCheckpointHook'
    names = [hook['type'].rpartition('.')[2] for hook in cfg.custom_hooks]
    assert len(set(names)) == len(names) == len(HOOKS)
    assert cfg.train_dataloader.batch_sampler.type == 'ResumableBatchSampler'
    assert cfg.train_dataloader.dataset.data_root == 'elsewhere/'
    assert cfg.train_dataloader.dataset.pipeline[0].type == 'LoadFromFileOrExplain'
    use_amp(cfg, 'bf16')
    assert Config.fromstring(cfg.pretty_text, '.py').train_dataloader.dataset.type == 'mmdet.datasets.CocoDataset'
