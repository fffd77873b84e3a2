"""Features of a small backbone on a few images of the embedded dataset."""

from pathlib import Path

import pytest
from mmengine.config import Config

from hybrid_backbones.benchmark.probes import Features, Subject, compute_features
from hybrid_backbones.engine.config import load_config

CONFIGS = Path(__file__).parents[3] / 'configs'
SUBJECT = Subject('tiny_moat_0')


def shapes_config(framework: str, train: int = 4, val: int = 3) -> Config:
    """UperNet or Mask R-CNN on the first images of the embedded dataset."""
    options = {'train_dataloader.dataset.indices': train, 'val_dataloader.dataset.indices': val}
    return load_config(CONFIGS / f'{framework}_conv2former_n_shapes.py', work_dir='unused', options=options)


@pytest.fixture(scope='session')
def segmentation_features(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Features]:
    folder, cfg = tmp_path_factory.mktemp('features'), shapes_config('upernet')
    return {split: compute_features(cfg, split, SUBJECT, folder) for split in ('train', 'val')}
