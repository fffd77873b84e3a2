"""Quoted figures are complete, each has a source, and the page shows what the table contains."""

import json
from collections import Counter
from pathlib import Path

import pytest
from synthetic_rows import profile_row, run_row

from hybrid_backbones import list_backbones
from hybrid_backbones.benchmark.quoted import METRICS, Quoted, published_value, quoted, quoted_rows
from hybrid_backbones.benchmark.quoted.page import DATASETS, FRAMEWORKS, page
from hybrid_backbones.benchmark.quoted.table import TRUST

ROOT = Path(__file__).parents[3]
FILE = ROOT / 'hybrid_backbones/benchmark/quoted/table.json'
ROWS = quoted()
FIELDS = dict(
    backbone='cvt_13', label='CvT-13', framework='upernet', dataset='ade20k', schedule='160k', pretraining='none',
    metrics={'mIoU': 40.0}, source='nowhere', trust='readme',
)  # fmt: skip


@pytest.mark.parametrize('row', ROWS, ids=lambda row: ' '.join(row.identity))
def test_record_is_complete(row):
    assert row.backbone is None or row.backbone in list_backbones()
    assert row.framework in FRAMEWORKS
    assert row.dataset in DATASETS
    assert all(30 < value < 90 for value in row.metrics.values())
    assert set(row.metrics) <= set(METRICS[:2] if row.dataset == 'coco' else METRICS[2:])
    assert row.metrics.get('mask_AP', 0) < row.metrics.get('box_AP', 1)
    assert row.metrics.get('mIoU', 0) < row.metrics.get('mIoU_ms', 100)
    assert len(row.source) > 20
    assert row.parameters_m is None or 5 < row.parameters_m < 500
    assert row.macs_g is None or (200 < row.macs_g < 3500 and row.size in {(800, 1280), (512, 2048), (640, 2560)})
    # Sources that are copies are marked.
    assert row.trust != 'readme' or any(mark in row.source for mark in ('README.md @', '/metafile.y'))
    assert row.trust != 'third_party' or any(mark in row.source for mark in ('notes', 'Papers with Code'))


def test_settings_and_names_are_unique():
    assert max(Counter(row.identity for row in ROWS).values()) == 1
    # One line each, so that a change of one figure is a change of one line.
    assert len(FILE.read_text(encoding='utf-8').splitlines()) == len(json.loads(FILE.read_text(encoding='utf-8'))) + 2
    # A backbone has one label.
    labels = {(row.backbone, row.label) for row in ROWS if row.backbone}
    assert len(labels) == len({backbone for backbone, _ in labels})


@pytest.mark.parametrize(
    'change',
    [
        dict(metrics={'AP': 40.0}),
        dict(metrics={}),
        dict(dataset='voc'),
        dict(trust='memory'),
        dict(source=''),
        dict(macs_g=100),
        dict(size=(512, 2048)),
    ],
    ids=str,
)
def test_invalid_record_is_an_error_with_its_name(change):
    with pytest.raises(ValueError, match='CvT-13'):
        Quoted(**FIELDS | change)


def test_quoted_filters_records():
    assert quoted(dataset='cityscapes') == [row for row in ROWS if row.dataset == 'cityscapes']
    assert {row.backbone for row in quoted(framework='cascade_mask_rcnn', schedule='3x')} >= {
        'hornet_t',
        'slak_t',
        None,
    }
    assert not quoted('cvt_13')


def test_published_value_prefers_the_authors_and_imagenet_1k():
    row = published_value('timm_swin_s', 'mask_rcnn', 'coco', '3x')
    assert (row.by, row.metrics) == ('', {'box_AP': 48.5, 'mask_AP': 43.3})
    setting = 'timm_convnext_b', 'upernet', 'ade20k', '160k'
    assert published_value(*setting).metrics['mIoU'] == 49.1
    assert published_value(*setting, 'ImageNet-22k').metrics['mIoU'] == 52.6
    assert published_value('hornet_l', 'upernet', 'ade20k', '160k').pretraining == 'ImageNet-22k'
    # Others' figures if the authors have none.
    assert published_value('deit_s', 'upernet', 'ade20k', '160k').by == 'mmsegmentation'


def test_published_value_is_none_without_the_same_setting():
    assert published_value('cvt_13', 'mask_rcnn', 'coco', '3x') is None
    assert published_value('hornet_t', 'cascade_mask_rcnn', 'coco', '1x') is None
    assert published_value('hornet_t', 'cascade_mask_rcnn', 'coco', '3x', 'none') is None
    # 36 epochs of another recipe are not a 3x schedule.
    assert published_value('botnet_50', 'mask_rcnn', 'coco', '3x') is None


def test_every_figure_was_read_in_a_source():
    assert {row.trust for row in ROWS} == set(TRUST) == {'readme', 'paper', 'third_party'}
    # Mask AP is stated nowhere that was read.
    assert published_value('conv2former_t', 'mask_rcnn', 'coco', '3x').metrics == {'box_AP': 48.0}
    assert published_value('conv2former_t', 'cascade_mask_rcnn', 'coco', '3x') is None


def test_committed_page_is_current():
    path = ROOT / 'docs/results/published.md'
    command = 'python -m hybrid_backbones.benchmark.quoted.page > docs/results/published.md'
    assert path.read_text(encoding='utf-8') == page(), f'run {command}'


def test_page_has_a_line_for_each_record():
    lines = [line for line in page().splitlines() if line.startswith('| ')]
    assert len(lines) == len(ROWS) + 2 * len({(row.framework, row.dataset) for row in ROWS})
    assert all('(quoted)' in line for line in lines if line.startswith('| backbone'))


def test_every_family_has_figures_or_is_listed_without():
    families = {'convit': 'ConViT', 'coatnet': 'CoAtNet', 'ceit': 'CeiT', 'cvt': 'CvT', 'vitc': 'ViT_C'}
    families |= {'timm_coatne': 'CoAtNet', 'timm_max': 'MaxViT', 'timm_efficientnet': 'EfficientNet'}
    listed = {row.backbone for row in ROWS}
    without = page().split('## Without published figures')[1]
    for name in list_backbones():
        family = next((key for key in families if name.startswith(key)), None)
        if family:
            assert families[family] in without
            assert name not in listed
        else:
            assert any(other and other.split('_')[:1] == name.split('_')[:1] for other in listed), name


def test_quoted_rows_are_of_the_measured_settings():
    measured = [run_row('cvt_13', ('cascade_mask_rcnn', 'coco', '3x', 'mask_AP', None)), profile_row()]
    rows = quoted_rows(measured)
    assert {row['origin'] for row in rows} == {'quoted'}
    assert {(row['identity']['framework'], row['identity']['dataset']) for row in rows} == {
        ('cascade_mask_rcnn', 'coco')
    }
    assert len({row['id'] for row in rows}) == len(rows)
    (hornet,) = [row for row in rows if row['identity']['backbone'] == 'hornet_t']
    assert hornet['metrics'] == {'box_AP': 51.7, 'mask_AP': 44.8}
    assert quoted_rows([profile_row()]) == []
