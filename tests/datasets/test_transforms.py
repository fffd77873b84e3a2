"""Images that cannot be read are named."""

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope

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
