"""tools/test.py's and tools/train.py's work on tiny models: outputs, and clear errors for bad input before any work."""

import json
import pickle
import shutil
from functools import partial
from pathlib import Path

import cv2
import pytest
import torch
from end_to_end.tiny import BACKBONE, DETECTOR, ROOT, SEGMENTOR
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from hybrid_backbones import create_backbone
from hybrid_backbones.checkpoints import CheckpointError
from hybrid_backbones.checkpoints.errors import ByHandError
from hybrid_backbones.checkpoints.published import find_published
from hybrid_backbones.datasets.checks import DataError
from hybrid_backbones.datasets.shapes import ensure_shapes
from hybrid_backbones.engine.run import test as run_test
from hybrid_backbones.engine.run import train
from hybrid_backbones.swap import swap_backbone


@pytest.fixture(scope='module')
def shapes(tmp_path_factory) -> Path:
    return ensure_shapes(tmp_path_factory.mktemp('shapes') / 'data', num_train=8, num_val=2, size=64)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def save_weights(config: Path, path: Path) -> Path:
    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict(), meta={}), path)
    return path


def test_detection_outputs(tmp_path, shapes):
    config = write(tmp_path, 'detector.py', DETECTOR)
    checkpoint = save_weights(config, tmp_path / 'weights.pth')
    arguments = dict(work_dir=str(tmp_path / 'work'), data_root=str(shapes), mallopt=False)
    out, show = tmp_path / 'out.pkl', tmp_path / 'show'
    metrics = run_test(str(config), str(checkpoint), out=str(out), show_dir=str(show), **arguments)
    assert {'coco/bbox_mAP_50', 'coco/segm_mAP_50'} <= metrics.keys()
    assert len(pickle.loads(out.read_bytes())) == 2
    drawn = sorted(show.rglob('*.jpg'))
    assert len(drawn) == 2
    assert cv2.imread(str(drawn[0])).shape[1] > cv2.imread(str(drawn[0])).shape[0]  # truth and prediction side by side

    metrics = run_test(str(config), str(checkpoint), out=str(tmp_path / 'coco.json'), **arguments)
    assert isinstance(json.loads((tmp_path / 'coco.bbox.json').read_text()), list)
    metrics = run_test(str(config), str(checkpoint), tta=True, **arguments)
    assert 'coco/bbox_mAP_50' in metrics and 'coco/segm_mAP_50' not in metrics
    with pytest.raises(ValueError, match=r'--out out\.txt: give NAME\.pkl'):
        run_test(str(config), str(checkpoint), out='out.txt', **arguments)


def test_segmentation_outputs(tmp_path, shapes):
    config = write(tmp_path, 'segmentor.py', SEGMENTOR)
    checkpoint = save_weights(config, tmp_path / 'weights.pth')
    arguments = dict(work_dir=str(tmp_path / 'work'), data_root=str(shapes), mallopt=False)
    out, show = tmp_path / 'out', tmp_path / 'show'
    metrics = run_test(str(config), str(checkpoint), out=str(out), show_dir=str(show), **arguments)
    assert 'mIoU' in metrics
    labels = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in out.glob('*.png')]
    assert [label.shape for label in labels] == [(64, 64)] * 2
    assert all(label.min() >= 1 and label.max() <= 7 for label in labels)  # as in ADE20K's files, 0 is other
    assert len(list(show.rglob('*.png'))) == 2
    assert 'mIoU' in run_test(str(config), str(checkpoint), tta=True, **arguments)
    with pytest.raises(ValueError, match='give a folder'):
        run_test(str(config), str(checkpoint), out='out.pkl', **arguments)


def test_checkpoint_of_another_model(tmp_path, shapes):
    config = write(tmp_path, 'detector.py', DETECTOR)
    other = write(tmp_path, 'other.py', DETECTOR.replace('depths=(1, 1, 2, 1)', 'depths=(1, 1, 3, 1)'))
    checkpoint = save_weights(other, tmp_path / 'other.pth')
    arguments = dict(work_dir=str(tmp_path / 'work'), data_root=str(shapes), mallopt=False)
    with pytest.raises(ValueError, match=r'other\.pth is a checkpoint of another model(?s:.*)backbone\.stages\.2\.2'):
        run_test(str(config), str(checkpoint), **arguments)
    with pytest.raises(FileNotFoundError, match=r'no checkpoint absent\.pth'):
        run_test(str(config), 'absent.pth', **arguments)


def test_wrong_neck_channels(tmp_path, shapes):
    text = DETECTOR.replace('neck=dict(in_channels=[8, 16, 24, 32]', 'neck=dict(in_channels=[8, 16, 24, 64]')
    config = write(tmp_path, 'detector.py', text)
    with pytest.raises(
        ValueError, match=r'in_channels is \[8, 16, 24, 64\], but Conv2Former puts out \(8, 16, 24, 32\)'
    ):
        train(str(config), work_dir=str(tmp_path / 'work'), data_root=str(shapes), mallopt=False)


HORNET = dict(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), orders=(2, 3, 3, 4), gf=())
swap_in = partial(swap_backbone, name='hornet_t', arch=HORNET)


def test_training_with_another_backbone(tmp_path, shapes):
    config = write(tmp_path, 'segmentor.py', SEGMENTOR)
    options = {'train_cfg.max_iters': 2, 'optim_wrapper.optimizer.lr': 1e-3}
    work_dir = str(tmp_path / 'work')
    runner = train(
        str(config), work_dir=work_dir, data_root=str(shapes), options=options, mallopt=False, change=swap_in
    )
    assert type(runner.model.backbone).__name__ == 'HorNet'
    assert max(group['lr'] for group in runner.optim_wrapper.param_groups) <= 1e-3  # the options have the last word
    checkpoint = tmp_path / 'work' / 'iter_2.pth'
    # What was written is a config and a checkpoint of it like any other.
    assert 'mIoU' in run_test(str(checkpoint.with_name('segmentor.py')), str(checkpoint), mallopt=False)


@pytest.mark.slow
def test_a_published_segmentor_is_tested_and_trained_from(tmp_path, shapes, monkeypatch):
    """A file under the authors' names, where a download goes, by its name in the index."""
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    backbone = f"backbone=dict(_delete_=True, type='HorNet', arch={HORNET}, layer_scale_init=1.0),"
    config = write(tmp_path, 'segmentor.py', SEGMENTOR.replace(BACKBONE, backbone))
    own = torch.load(save_weights(config, tmp_path / 'own.pth'))['state_dict']
    theirs = {key.replace('.out_norms.', '.norm'): value + 0.1 for key, value in own.items()}
    published = find_published('upernet_hornet_t_ade20k').path
    published.parent.mkdir(parents=True)
    torch.save(dict(state_dict=theirs, meta=dict(CLASSES=('wall',), mmseg_version='0.20.2')), published)

    name, arguments = 'hybrid://upernet_hornet_t_ade20k', dict(data_root=str(shapes), mallopt=False)
    assert 'mIoU' in run_test(str(config), name, work_dir=str(tmp_path / 'test'), **arguments)
    options = {'load_from': name, 'train_cfg.max_iters': 1, 'optim_wrapper.optimizer.lr': 0.0}
    runner = train(str(config), work_dir=str(tmp_path / 'train'), options=options, **arguments)
    for key, value in runner.model.named_parameters():
        assert torch.equal(value, theirs[key.replace('.out_norms.', '.norm')]), key


def test_checkpoint_of_another_family_for_another_backbone(tmp_path, shapes):
    config = write(tmp_path, 'segmentor.py', SEGMENTOR)
    deit = dict(depth=4, dim=8, heads=1, mlp_ratio=1, stem=())
    checkpoint = tmp_path / 'deit.pth'
    torch.save(create_backbone('deit_t', arch=deit, pyramid=None, out_norm=False).state_dict(), checkpoint)
    arguments = dict(work_dir=str(tmp_path / 'work'), data_root=str(shapes), mallopt=False)
    with pytest.raises(CheckpointError, match=r'deit\.pth is not a checkpoint of this HorNet: 0 of its'):
        train(str(config), change=partial(swap_in, checkpoint=str(checkpoint)), **arguments)


def test_training_without_weights_that_only_a_person_can_fetch(tmp_path, shapes, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    config = write(tmp_path, 'segmentor.py', SEGMENTOR)
    options = {'train_cfg.max_iters': 1}
    weights = dict(type='Pretrained', checkpoint='hybrid://conv2former_n_in1k')
    options['model.backbone.init_cfg'] = weights
    arguments = dict(work_dir=str(tmp_path / 'work'), data_root=str(shapes), options=options, mallopt=False)
    with pytest.raises(ByHandError, match=r'conv2former_n_in1k\.pth'):
        train(str(config), require_weights=True, **arguments)
    runner = train(str(config), **arguments)
    log = Path(runner.log_dir, f'{runner.timestamp}.log').read_text().splitlines()
    missing = [i for i, line in enumerate(log) if 'is not on this machine' in line and "'" not in line]
    assert len(missing) == 2  # at the start and at the end
    assert len(log) - missing[-1] < 6
    assert all('pan.baidu.com' in ''.join(log[i : i + 4]) for i in (missing[0], missing[-1]))


def test_options_of_a_backbone_that_is_not_named(run_tool):
    status, _, errors = run_tool('train', 'config.py', '--checkpoint', 'deit.pth')
    assert status == 2
    assert '--checkpoint and --backbone-options are of the backbone that --backbone names; give it too' in errors


def test_damaged_image_is_named(tmp_path, shapes):
    data = tmp_path / 'data'
    shutil.copytree(shapes, data)
    damaged = sorted((data / 'train2017').iterdir())[3]
    damaged.write_bytes(damaged.read_bytes()[:200])
    config = write(tmp_path, 'detector.py', DETECTOR)
    arguments = dict(work_dir=str(tmp_path / 'work'), data_root=str(data), mallopt=False)
    with pytest.raises(DataError, match=rf'images cannot be read: .*\n.*{damaged}'):
        train(str(config), **arguments)
    with pytest.raises(OSError, match=rf'LoadImageFromFile could not read {damaged}'):
        train(str(config), allow=['image-damaged'], **arguments)


@pytest.mark.parametrize('problem', ['data', 'work_dir'])
def test_refused_before_the_model_is_built(tmp_path, shapes, monkeypatch, problem):
    monkeypatch.setattr('hybrid_backbones.engine.run.Runner', None)
    config = write(tmp_path, 'detector.py', DETECTOR)
    if problem == 'data':
        data = tmp_path / 'data'
        shutil.copytree(shapes, data)
        annotations = data / 'annotations' / 'instances_train2017.json'
        annotations.unlink()
        with pytest.raises(DataError, match=f'no file {annotations}'):
            train(str(config), work_dir=str(tmp_path / 'work'), data_root=str(data), mallopt=False)
    else:
        with pytest.raises(PermissionError, match='--work-dir'):
            train(str(config), work_dir=str(config / 'work'), data_root=str(shapes), mallopt=False)


def test_configs_do_not_depend_on_our_tools(tmp_path, shapes):
    """mmdet's own tools/train.py builds a runner from the config as it is; `custom_imports` brings the rest."""
    from mmengine.runner import Runner

    from hybrid_backbones.datasets.roots import set_data_root

    cfg = Config.fromfile(write(tmp_path, 'detector.py', DETECTOR))
    set_data_root(cfg, str(shapes))
    cfg.work_dir, cfg.launcher = str(tmp_path / 'work'), 'none'
    cfg.train_cfg.max_epochs = 1
    Runner.from_cfg(cfg).train()
    assert (tmp_path / 'work' / 'epoch_1.pth').is_file()
    assert str(ROOT) not in (tmp_path / 'work' / 'detector.py').read_text()
