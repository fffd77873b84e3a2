"""Images in a folder per class, ImageNet's layout: `train/CLASS/*.jpg` and `val/CLASS/*.jpg`."""

from pathlib import Path
from typing import Any

from timm.data import create_transform
from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder

SPLITS = ('train', 'val')
LAYOUT = 'expected FOLDER/train/CLASS/*.jpg and FOLDER/val/CLASS/*.jpg, the classes in both the same'


class ClassFolders(Dataset):
    """Images of a classifier: `dict(inputs=(3, size, size) uint8 RGB, labels=int)`, classes in alphabetical order.

    timm's transforms: random crops, flips and RandAugment for `train`, the centre for `val`.

    Args:
        root: Folder of the layout above.
        size: Side of the square images in pixels.
        split: `'train'` or `'val'`.
        augment: RandAugment as timm writes it, `'rand-m9-mstd0.5-inc1'`, for `train`; None for crops and flips alone.

    Raises:
        FileNotFoundError: No such folder, or a class without images.
    """

    def __init__(self, root: str, size: int = 224, split: str = 'train', augment: str | None = None) -> None:
        transform = create_transform(
            size,
            is_training=split == 'train',
            auto_augment=augment,
            color_jitter=0.0,
            interpolation='random' if split == 'train' else 'bicubic',
            use_prefetcher=True,  # which leaves the images uint8
        )
        self.images = ImageFolder(Path(root) / split, transform)
        self.classes = tuple(self.images.classes)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, label = self.images[index]
        return dict(inputs=image, labels=label)


def read_classes(root: str | Path) -> tuple[str, ...]:
    """Names of the classes of a folder, which its two splits share.

    Raises:
        FileNotFoundError: A folder of the layout is missing.
        ValueError: Fewer than two classes, or others in `train` than in `val`.
    """
    train, val = (_class_folders(Path(root) / split) for split in SPLITS)
    if train != val:
        only = {'train': sorted(train - val), 'val': sorted(val - train)}
        listed = '; '.join(f'only in {split}: {", ".join(names[:4])}' for split, names in only.items() if names)
        raise ValueError(f'{root}: train has {len(train)} classes, val has {len(val)} ({listed}); {LAYOUT}')
    if len(train) < 2:
        raise ValueError(f'{root} has one class, {min(train)}; a classifier needs two or more; {LAYOUT}')
    return tuple(sorted(train))


def _class_folders(folder: Path) -> set[str]:
    if not folder.is_dir():
        raise FileNotFoundError(f'no folder {folder}; {LAYOUT}')
    classes = {path.name for path in folder.iterdir() if path.is_dir()}
    if not classes:
        raise FileNotFoundError(f'{folder} has no folder per class; {LAYOUT}')
    return classes
