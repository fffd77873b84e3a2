"""Pictures appear complete or not at all, and only as PNG; images are read with errors that name them."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from hybrid_backbones.visualize.figures import check_png, new_figure, save_figure, written_whole
from hybrid_backbones.visualize.images import list_images, map_stride, read_image


def test_a_failed_picture_leaves_the_old_one(tmp_path: Path) -> None:
    out = save_figure(new_figure(1, 1), tmp_path / 'new' / 'a.png')
    before = out.read_bytes()
    with pytest.raises(RuntimeError, match='half'), written_whole(out) as path:
        path.write_bytes(before[:20])
        raise RuntimeError('half')
    assert out.read_bytes() == before and list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize('name', ['a.jpg', 'a', '.'])
def test_only_png(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'ends in \.png'):
        check_png(tmp_path / name)


def test_images_are_read_and_resized(tmp_path: Path) -> None:
    path = tmp_path / 'a.png'
    cv2.imwrite(str(path), np.full((6, 9, 3), (0, 0, 200), np.uint8))
    assert read_image(path).shape == (6, 9, 3)
    assert read_image(path, (4, 5)).shape == (4, 5, 3)
    assert read_image(path)[0, 0].tolist() == [200, 0, 0], 'red first'
    with pytest.raises(ValueError, match='size'):
        read_image(path, (0, 5))


def test_what_is_not_an_image_is_named(tmp_path: Path, photo: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'no image .*absent\.jpg'):
        read_image(tmp_path / 'absent.jpg')
    (tmp_path / 'text.jpg').write_text('not an image')
    with pytest.raises(ValueError, match=r'text\.jpg is not an image'):
        read_image(tmp_path / 'text.jpg')
    whole = photo.read_bytes()
    (tmp_path / 'cut.jpg').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r'cut\.jpg is not an image .* damaged'):
        read_image(tmp_path / 'cut.jpg')


def test_folders_of_images(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='no folder'):
        list_images(tmp_path / 'absent')
    (tmp_path / 'notes.txt').write_text('')
    with pytest.raises(FileNotFoundError, match=r'no images in .*\*\.jpg'):
        list_images(tmp_path)
    (tmp_path / 'below').mkdir()
    for name in ('b.JPG', 'below/a.png'):
        (tmp_path / name).write_bytes(b'')
    assert list_images(tmp_path) == [tmp_path / 'b.JPG', tmp_path / 'below' / 'a.png']
    assert list_images(tmp_path / 'b.JPG') == [tmp_path / 'b.JPG']


@pytest.mark.parametrize(
    ('size', 'grid', 'stride'), [((92, 117), (23, 30), 4), ((92, 117), (2, 3), 32), ((5, 3), (1, 1), 4)]
)
def test_stride_of_a_map(size: tuple[int, int], grid: tuple[int, int], stride: int) -> None:
    assert map_stride(size, grid) == stride
