"""The index of detectors and segmentors: every row has a config of its backbone, and the figures of the page."""

import shlex
from argparse import ArgumentParser
from pathlib import Path

import pytest
from mmengine.config import Config, DictAction

from hybrid_backbones.benchmark.quoted import quoted
from hybrid_backbones.checkpoints.published import list_published
from hybrid_backbones.checkpoints.published_models import list_models

CONFIGS = Path(__file__).parents[2] / 'configs'
MODELS = list_models()


def test_configs_are_of_the_backbones():
    for row in MODELS:
        assert f"checkpoint = 'hybrid://{row.backbone}_" in (CONFIGS / f'{row.config}.py').read_text(), row.name


@pytest.mark.parametrize('row', {row.options: row for row in MODELS if row.options}.values(), ids=lambda row: row.name)
def test_configs_take_the_options(row):
    cfg = Config.fromfile(CONFIGS / f'{row.config}.py')
    parser = ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    _, _, config, checkpoint, *words = shlex.split(row.command)
    assert (config, checkpoint) == (f'hybrid_backbones::{row.config}.py', f'hybrid://{row.name}')
    options = parser.parse_args(words).cfg_options
    cfg.merge_from_dict(options)
    for key, value in options.items():
        changed = cfg
        for part in key.split('.'):
            changed = changed[int(part) if part.isdigit() else part]
        assert changed == value
    assert cfg.test_dataloader.dataset.pipeline[1].type == 'Resize'


def test_names_and_addresses_are_unique():
    names = [row.name for row in MODELS]
    assert len({*names, *(row.name for row in list_published())}) == len(names) + len(list_published())
    addresses = [source.at for row in MODELS for source in row.sources]
    assert len(set(addresses)) == len(addresses)
    places = [source.place for row in MODELS for source in row.sources]
    assert len(set(places)) == len(places)


def test_figures_are_those_of_the_page():
    files = {row.file: row for row in quoted() if row.file}
    assert files.keys() <= {row.name for row in MODELS}
    for row in MODELS:
        if row.name in files:
            page = files[row.name]
            assert (row.metrics, row.backbone, row.schedule, row.pretraining) == (
                page.metrics, page.backbone, page.schedule, page.pretraining
            )  # fmt: skip
    # The page has the model without GIoU loss, which no config here builds.
    assert {row.name for row in MODELS} - files.keys() == {'cascade_moganet_s_coco'}


def test_hashes_are_those_in_the_names_of_openmmlab_s_files():
    hashed = [source for row in MODELS for source in row.sources if 'openmmlab.com' in source.at]
    assert len(hashed) == 14
    assert all(source.at.endswith(f'-{source.sha256}.pth') for source in hashed)
