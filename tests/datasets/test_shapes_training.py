"""Networks learn on `shapes`: briefly with tiny ones in every run, and the demo itself when asked for (`--slow`)."""

from pathlib import Path

import pytest

from hybrid_backbones.engine.run import train
from hybrid_backbones.visualize import draw_curves, final_metrics, find_run, read_scalars, save_predictions

CONFIGS = Path(__file__).parents[2] / 'configs'
TINY = dict(depths=(1, 1, 1, 1), dims=(16, 32, 64, 128), kernel_size=5)

# Regions that are trained on and masks that are drawn take most of a detector's time.
FEW_REGIONS = {
    'model.train_cfg.rpn_proposal.max_per_img': 100,
    'model.train_cfg.rcnn.sampler.num': 32,
    'model.test_cfg.rpn.max_per_img': 50,
    'model.test_cfg.rcnn.max_per_img': 20,
}


def short_run(iterations: int, **more: object) -> dict[str, object]:
    return {
        'model.backbone': dict(_delete_=True, type='Conv2Former', arch=TINY, layer_scale_init=1.0),
        'train_cfg.max_iters': iterations,
        'train_cfg.val_interval': iterations,
        'param_scheduler': [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=5)],
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
        'val_dataloader.num_workers': 0,
        'val_dataloader.persistent_workers': False,
        'val_dataloader.dataset.indices': 4,
        'default_hooks.logger.interval': 5,
        'log_processor.window_size': 5,
        **more,
    }


@pytest.fixture(scope='module', autouse=True)
def small_shapes(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The real scenes, in a cache of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('HYBRID_BACKBONES_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield


@pytest.mark.parametrize(
    ('name', 'options', 'metrics'),
    [
        (
            'maskrcnn',
            {'model.neck.in_channels': list(TINY['dims']), **FEW_REGIONS},
            {'coco/bbox_mAP_50', 'coco/segm_mAP_50'},
        ),
        pytest.param(
            'cascade_maskrcnn',
            {'model.neck.in_channels': list(TINY['dims'])},
            {'coco/bbox_mAP_50', 'coco/segm_mAP_50'},
            marks=pytest.mark.slow,
        ),
        (
            'upernet',
            {
                'model.decode_head.in_channels': list(TINY['dims']),
                'model.auxiliary_head.in_channels': TINY['dims'][2],
                'train_dataloader.batch_size': 2,
            },
            {'mIoU', 'aAcc'},
        ),
    ],
)
def test_loss_falls_and_the_run_can_be_drawn(
    name: str, options: dict[str, object], metrics: set[str], tmp_path: Path
) -> None:
    # MMEngine keeps a visualizer, and with it the place of the log, for as long as a process uses the same name.
    options = short_run(25, **options, **{'visualizer.name': name})
    train(str(CONFIGS / f'{name}_conv2former_n_shapes.py'), work_dir=str(tmp_path), options=options, mallopt=False)
    run = find_run(tmp_path)
    losses, _ = read_scalars(run.scalars)
    first, last = losses['loss'][0, 1], losses['loss'][-1, 1]
    assert last < 0.8 * first
    assert metrics <= final_metrics(run.scalars).keys()
    assert draw_curves(run.scalars, tmp_path / 'curves.png').stat().st_size > 5000
    drawn = save_predictions(run.config, run.checkpoint, tmp_path / 'predictions', num_images=2, score_thr=0.05)
    assert len(drawn) == 2
    assert all(picture.stat().st_size > 20000 for picture in drawn)


@pytest.mark.slow
def test_demo_reaches_its_promise(tmp_path: Path) -> None:
    """As `make demo` runs it, in minutes."""
    train(str(CONFIGS / 'maskrcnn_conv2former_n_shapes.py'), work_dir=str(tmp_path))
    metrics = final_metrics(find_run(tmp_path).scalars)
    assert metrics['coco/bbox_mAP_50'] >= 0.60
    assert metrics['coco/segm_mAP_50'] >= 0.55


@pytest.mark.slow
def test_segmentor_learns(tmp_path: Path) -> None:
    train(str(CONFIGS / 'upernet_conv2former_n_shapes.py'), work_dir=str(tmp_path))
    assert final_metrics(find_run(tmp_path).scalars)['mIoU'] >= 60
