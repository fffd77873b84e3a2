"""Inputs of public bug reports, drawn by the reference folder's generators: right, or an error before training."""

import os
import runpy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybrid_backbones.datasets.checks import DataError, check_data
from hybrid_backbones.engine.config import load_config

CONFIGS = Path(__file__).parents[2] / 'configs'

HEALTHY = [
    'base',
    'big',
    'Border',
    'val_cat_order',
    'both_cat_order',
    'ann_missing_image',
    'cat_0_7_14',
    'dup_image',
    'float_image_id',
    'names',
    'rle_c',
    'rle_u',
    'roboflow0',
    'str_cat_id',
    'str_image_id',
    'bom',
    'Bgray',
    'Brgba',
    'Bpal',
    'Bcmyk',
    'B16',
    'Bla',
    'Bprog',
    'Bwebp',
    'Bgif',
    'Bbmp',
    'Bexif_upright',
]
ERRORS = dict(
    area0='area-zero', no_area='area-missing', no_iscrowd='iscrowd-missing', poly4='polygon-short',
    empty_seg='segmentation', null_seg='segmentation', no_seg='segmentation', rle_wrong_size='rle-size',
    ann_id0='annotation-id-zero', dup_ann='annotation-id', Bdupann='annotation-id', no_ann_key='annotation-file',
    no_annotations_train='no-objects', no_annotations_val='no-objects', swap_wh='image-swapped',
    Bswap='image-swapped', bad_box='box-empty', str_box='box', crowd1='crowd', Bcrowd='crowd',
    cat_case='category-missing', one_cat_other='category-missing', dup_cat='category-double', B12='image-depth',
    Btif16='image-depth',
)  # fmt: skip
HEALTHY_MAPS = ['big', 'Spal', 'S16', 'Sbool']
ERRORS_OF_MAPS = dict(
    S255='label-one-class', Srgb='label-colours', Srgb_gray='label-colours', Sover='label-values', Ssize='label-size',
    S16big='label-values', Spng='no-images', Ssuffix='label-missing', Sjpg='label-missing',
)  # fmt: skip
CONFIG_CASES = dict(
    order=None, concat_meta=None, oneclass=None, nometa='category-missing', nocomma='classes-text', shortpal='palette',
    seg2='label-values',
)  # fmt: skip


@pytest.fixture(scope='module')
def cases(tmp_path_factory) -> Iterator[Path]:
    """A folder with `data/` and `configs/` as the generators write them; the working directory of these tests."""
    source = Path(os.environ.get('SHARED_DIR', Path(__file__).parents[3] / 'shared')) / 'cases'
    if not source.is_dir():
        pytest.skip(f'no {source} (set SHARED_DIR to point elsewhere)')
    folder, before, path = tmp_path_factory.mktemp('cases'), Path.cwd(), list(sys.path)
    shutil.copytree(source / 'configs', folder / 'configs')
    for config in (folder / 'configs').glob('*.py'):
        config.chmod(0o644)
        config.write_text(config.read_text().replace('{{CONFIGS}}', str(CONFIGS)))
    os.chdir(folder)
    sys.path.insert(0, str(source))
    try:
        make = runpy.run_path(str(source / 'make.py'))['make']
        make('data/base')
        make('data/big', n=dict(train=64, val=16), seed=1)
        for name in ('coco_variants', 'image_variants', 'label_variants'):
            runpy.run_path(str(source / f'{name}.py'))
        yield folder
    finally:
        os.chdir(before)
        sys.path[:] = path


def check(config: str, data: str | None = None) -> None:
    cfg = load_config(f'configs/{config}.py', work_dir='work')
    if data is not None:
        for split in ('train', 'val', 'test'):
            cfg[f'{split}_dataloader'].dataset.data_root = f'data/{data}/'
            evaluator = cfg.get(f'{split}_evaluator') or {}
            if 'ann_file' in evaluator:
                evaluator.ann_file = f'data/{data}/val.json'
    check_data(cfg, ('train', 'val'))


@pytest.mark.parametrize('name', HEALTHY)
def test_healthy_annotations_pass(cases, name):
    check('det', name)


@pytest.mark.parametrize('name, code', ERRORS.items())
def test_broken_annotations(cases, name, code):
    with pytest.raises(DataError, match=rf'ERROR   \[{code}\] data/{name}/'):
        check('det', name)


@pytest.mark.parametrize('name', HEALTHY_MAPS)
def test_healthy_label_maps_pass(cases, name):
    check('seg', name)


@pytest.mark.parametrize('name, code', ERRORS_OF_MAPS.items())
def test_broken_label_maps(cases, name, code):
    with pytest.raises(DataError, match=rf'ERROR   \[{code}\] data/{name}/'):
        check('seg', name)


@pytest.mark.parametrize('name, code', CONFIG_CASES.items())
def test_configs(cases, name, code):
    if code is None:
        check(name)
    else:
        with pytest.raises(DataError, match=rf'\[{code}\]'):
            check(name)
