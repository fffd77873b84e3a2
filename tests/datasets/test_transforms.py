"""Images, label maps and objects that cannot be read are named, and no others."""

import copy

import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from hybrid_backbones.compat.pipelines import PipelineError
from hybrid_backbones.datasets.transforms import LoadFromFileOrExplain, is_cut_jpeg


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def write_image(path, size=64):
    image = np.random.randint(0, 255, (size, size, 3), np.uint8)  # noqa: NPY002
    cv2.imwrite(str(path), image)
    return path


def test_reads_what_is_readable(tmp_path):
    path = write_image(tmp_path / 'good.jpg')
    transform = LoadFromFileOrExplain(dict(type='LoadImageFromFile'))
    assert transform(dict(img_path=str(path)))['img'].shape == (64, 64, 3)
    assert 'LoadImageFromFile' in repr(transform)


@pytest.mark.parametrize('damage', ['garbage', 'empty', 'absent', 'cut'])
def test_names_what_is_not(tmp_path, damage):
    path = write_image(tmp_path / f'{damage}.jpg')
    content = path.read_bytes()
    if damage == 'absent':
        path.unlink()
    else:
        path.write_bytes({'garbage': b'not an image', 'empty': b'', 'cut': content[: len(content) // 2]}[damage])
    assert is_cut_jpeg(path) == (damage == 'cut')
    with pytest.raises(OSError, match=rf'LoadImageFromFile could not read .*{damage}\.jpg(?s:.*)fetch it again'):
        LoadFromFileOrExplain(dict(type='LoadImageFromFile'))(dict(img_path=str(path)))


BOX = dict(bbox=[1.0, 2.0, 9.0, 9.0], bbox_label=0, ignore_flag=0)
POLYGON = [[1.0, 2.0, 9.0, 2.0, 9.0, 9.0]]
BROKEN = {
    'null': dict(BOX, mask=None),
    'absent': BOX,
    'size': dict(BOX, mask=dict(size='?', counts=[1, 2])),
    'no box': dict(BOX, bbox=None, mask=POLYGON),
}


@pytest.mark.parametrize('broken', BROKEN)
def test_blames_the_object(tmp_path, broken):
    """An intact image was called damaged."""
    path = write_image(tmp_path / 'intact.jpg')
    sample = dict(
        img_path=str(path),
        img_id=7,
        ori_shape=(64, 64),
        instances=[dict(BOX, mask=POLYGON), copy.deepcopy(BROKEN[broken]), dict(BOX, mask=POLYGON)],
    )
    transform = LoadFromFileOrExplain(dict(type='LoadAnnotations', with_bbox=True, with_mask=True))
    with pytest.raises(OSError, match=r'object 2 of 3 in .*intact\.jpg \(image id 7\)') as error:
        transform(sample)
    assert 'damaged' not in str(error.value)


def test_blames_the_label_map(tmp_path):
    image, labels = write_image(tmp_path / 'intact.jpg'), tmp_path / 'labels.png'
    labels.write_bytes(b'no image')
    sample = dict(img_path=str(image), seg_map_path=str(labels), instances=[dict(BOX)], ori_shape=(64, 64))
    transform = LoadFromFileOrExplain(dict(type='LoadAnnotations', with_bbox=True, with_seg=True))
    with pytest.raises(OSError, match=r'could not read .*labels\.png .*not a label map') as error:
        transform(sample)
    assert 'intact.jpg' not in str(error.value)


def fail_on_large_images(data):
    raise AssertionError('no crop of this size')


def test_later_transforms_name_the_file(tmp_path):
    path = write_image(tmp_path / 'good.jpg')
    pipeline = Compose([dict(type='LoadImageFromFile'), fail_on_large_images])
    with pytest.raises(PipelineError, match=r'function failed on .*good\.jpg: AssertionError: no crop'):
        pipeline(dict(img_path=str(path)))
    with pytest.raises(KeyError, match='img_path'):
        pipeline({})
    named = Compose([LoadFromFileOrExplain(dict(type='LoadImageFromFile'))])
    with pytest.raises(OSError, match=r'absent\.jpg') as error:
        named(dict(img_path=str(tmp_path / 'absent.jpg')))
    assert not isinstance(error.value, PipelineError)
