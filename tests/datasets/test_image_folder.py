"""ImageNet's layout is read, and what is wrong with a folder is said before anything is trained."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from hybrid_backbones.datasets.image_folder import ClassFolders, read_classes


def write_images(root: Path, train: str, val: str, count: int = 2) -> Path:
    """A folder per letter in each split; its images have the brightness of their class."""
    for split, classes in (('train', train), ('val', val)):
        for position, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                cv2.imwrite(str(folder / f'{number}.jpg'), np.full((50, 40, 3), 20 + 100 * position, np.uint8))
    return root


def test_images_and_labels(tmp_path):
    root = write_images(tmp_path, 'ab', 'ab')
    assert read_classes(root) == ('a', 'b')
    for split in ('train', 'val'):
        images = ClassFolders(str(root), 32, split, augment=None)
        assert len(images) == 4 and [item['labels'] for item in images] == [0, 0, 1, 1]
        pixels = torch.stack([torch.as_tensor(item['inputs']) for item in images])
        assert pixels.shape == (4, 3, 32, 32) and pixels.dtype == torch.uint8
        assert (pixels.float().mean((1, 2, 3)) - torch.tensor([20.0, 20, 120, 120])).abs().max() < 3


def test_training_images_are_augmented(tmp_path):
    images = ClassFolders(str(write_images(tmp_path, 'ab', 'ab')), 32, 'train', augment='rand-m9-mstd0.5-inc1')
    assert len({np.asarray(images[0]['inputs']).tobytes() for _ in range(8)}) > 1


@pytest.mark.parametrize(
    ('train', 'val', 'error', 'message'),
    [
        ('', '', FileNotFoundError, r'no folder .*train; expected FOLDER/train/CLASS'),
        ('ab', '', FileNotFoundError, r'no folder .*val'),
        ('a', 'a', ValueError, r'one class, a; a classifier needs two or more'),
        ('abc', 'ad', ValueError, r'3 classes, val has 2 \(only in train: b, c; only in val: d\)'),
    ],
)
def test_other_folders(tmp_path, train, val, error, message):
    with pytest.raises(error, match=message):
        read_classes(write_images(tmp_path, train, val))


def test_images_without_class_folders(tmp_path):
    for split in ('train', 'val'):
        (tmp_path / split).mkdir()
        (tmp_path / split / 'image.jpg').touch()
    with pytest.raises(FileNotFoundError, match='train has no folder per class'):
        read_classes(tmp_path)
