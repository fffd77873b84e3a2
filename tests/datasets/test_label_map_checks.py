"""Label maps: each kind of mistake is found by its code, intact ones pass, repaired ones pass too."""

import numpy as np
import pytest
from datasets.tiny_data import CLASSES, HEIGHT, PALETTE, WIDTH, segmentation_config, write_label_maps
from PIL import Image

from hybrid_backbones.datasets.checks import DataError, check_data
from hybrid_backbones.datasets.checks.view import DataView
from hybrid_backbones.datasets.repair import repair

COLOURS = np.array([(0, 0, 0), *PALETTE], np.uint8)


def palette_image(labels: np.ndarray) -> Image.Image:
    image = Image.fromarray(labels)
    image.putpalette(COLOURS.tobytes() + bytes(768 - 12))
    return image


ERRORS = {
    'colours': (lambda a: COLOURS[a], 'label-colours'),
    'three equal channels': (lambda a: np.repeat(a[..., None], 3, 2), 'label-colours'),
    'masks of 0 and 255': (lambda a: ((a > 0) * 255).astype(np.uint8), 'label-one-class'),
    'values above the classes': (lambda a: np.where(a == 3, 9, a).astype(np.uint8), 'label-values'),
    '16 bits': (lambda a: a.astype(np.uint16) * 256 + 1, 'label-values'),
    'another size': (lambda a: a[::2, ::2].copy(), 'label-size'),
    'transposed': (lambda a: a.T.copy(), 'label-size'),
    'everything ignored': (lambda a: np.full_like(a, 255), 'label-ignored'),
    'one class': (np.zeros_like, 'label-one-class'),
}
INTACT = {
    'as they are': None,
    'palette': palette_image,
    '16 bits of small values': lambda a: a.astype(np.uint16),
    'ignored pixels': lambda a: np.where(a == 2, 255, a).astype(np.uint8),
}


@pytest.mark.parametrize('change, code', ERRORS.values(), ids=ERRORS)
def test_mistakes_are_errors(tmp_path, change, code):
    write_label_maps(tmp_path, change)
    with pytest.raises(DataError) as error:
        check_data(segmentation_config(tmp_path))
    text = str(error.value)
    assert f'ERROR   [{code}]' in text
    assert f'{tmp_path}/labels/train' in text and 'for example' in text and 'Remedy: ' in text


@pytest.mark.parametrize('change', INTACT.values(), ids=INTACT)
def test_intact_label_maps_pass(tmp_path, change):
    write_label_maps(tmp_path, change)
    check_data(segmentation_config(tmp_path))


def test_binary_images_are_classes(tmp_path):
    write_label_maps(tmp_path, lambda a: Image.fromarray(a > 0))
    check_data(segmentation_config(tmp_path, classes=('ground', 'thing')))


def test_one_class_alone_is_an_error(tmp_path):
    """Whatever the network answers, mIoU is 100: 255 is ignored, and there is nothing but class 0."""
    write_label_maps(tmp_path, lambda a: ((a == 0) * 255).astype(np.uint8))
    with pytest.raises(DataError, match=r'label-one-class.*the only class.*\n.*\n.*\n.*name the background'):
        check_data(segmentation_config(tmp_path, classes=('thing',)))


def test_masks_among_maps_of_classes(tmp_path):
    write_label_maps(tmp_path, lambda a: (a > 0).astype(np.uint8))
    cfg = segmentation_config(tmp_path, classes=('ground', 'thing'))
    check_data(cfg)
    path = tmp_path / 'labels' / 'train' / '0.png'
    Image.fromarray(np.asarray(Image.open(path)) * 255).save(path)
    with pytest.raises(DataError, match=r'label-mixed.*\n +1 of 4'):
        check_data(cfg)


def test_suffixes_that_do_not_fit_are_named_with_the_line_to_write(tmp_path):
    write_label_maps(tmp_path)
    with pytest.raises(DataError, match=r"files \*\.jpg are there: .*train_dataloader\.dataset\.img_suffix='\.jpg'"):
        check_data(segmentation_config(tmp_path, **{'train_dataloader.dataset.img_suffix': '.png'}))
    for path in (tmp_path / 'labels').rglob('*.png'):
        path.rename(path.with_name(f'{path.stem}_mask.png'))
    with pytest.raises(DataError, match=r"val_dataloader\.dataset\.seg_map_suffix='_mask\.png'"):
        check_data(segmentation_config(tmp_path))
    suffix = {f'{split}_dataloader.dataset.seg_map_suffix': '_mask.png' for split in ('train', 'val')}
    check_data(segmentation_config(tmp_path, **suffix))


def test_subfolders_are_searched(tmp_path):
    write_label_maps(tmp_path)
    for folder in (tmp_path / 'train', tmp_path / 'labels' / 'train'):
        (folder / 'city').mkdir()
        for path in list(folder.glob('*.*')):
            path.rename(folder / 'city' / path.name)
    check_data(segmentation_config(tmp_path))


def test_zero_label(tmp_path):
    write_label_maps(tmp_path)
    reduced = {f'{split}_dataloader.dataset.reduce_zero_label': True for split in ('train', 'val')}
    check_data(segmentation_config(tmp_path, classes=CLASSES, **reduced))
    with pytest.raises(DataError, match=r'reduce-zero-label.*ignores 0 and shifts the others'):
        check_data(segmentation_config(tmp_path, **reduced))
    with pytest.raises(DataError, match='add the class of value 0 to classes, or ignore it'):
        check_data(segmentation_config(tmp_path, classes=CLASSES))
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True)]
    with pytest.raises(DataError, match='reduce_zero_label=False, its LoadAnnotations True'):
        check_data(segmentation_config(tmp_path, **{'train_dataloader.dataset.pipeline': pipeline}))


@pytest.mark.parametrize(
    'change', [COLOURS.__getitem__, lambda a: np.repeat(a[..., None], 3, 2), lambda a: a[::2, ::2].copy(), np.transpose]
)
def test_repaired_label_maps_are_the_intact_ones(tmp_path, change):
    write_label_maps(tmp_path / 'intact')
    write_label_maps(tmp_path / 'broken', change)
    cfg = segmentation_config(tmp_path / 'broken')
    said = '\n'.join(repair(DataView(cfg, ('train', 'val')), tmp_path / 'fixed'))
    assert 'label maps changed' in said and 'train_dataloader.dataset.data_prefix.seg_map_path=' in said
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset.data_prefix.seg_map_path = str(tmp_path / 'fixed' / 'labels' / split)
    check_data(cfg)
    repaired = np.asarray(Image.open(tmp_path / 'fixed' / 'labels' / 'train' / '0.png'))
    intact = np.asarray(Image.open(tmp_path / 'intact' / 'labels' / 'train' / '0.png'))
    assert repaired.shape == (HEIGHT, WIDTH) and (repaired == intact).mean() > 0.9


def test_masks_of_0_and_255_are_repaired(tmp_path):
    write_label_maps(tmp_path / 'data', lambda a: ((a > 0) * 255).astype(np.uint8))
    cfg = segmentation_config(tmp_path / 'data', classes=('ground', 'thing'))
    list(repair(DataView(cfg, ('train',)), tmp_path / 'fixed'))
    assert set(np.unique(np.asarray(Image.open(tmp_path / 'fixed' / 'labels' / 'train' / '0.png')))) == {0, 1}
