"""Top-1 of published classifiers on ImageNet's validation images, beside the published figure."""

import math
from pathlib import Path

import torch
from timm.data import ImageNetInfo
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode, v2

from ..backbones._classifier import Classifier
from ..backbones.factory import create_classifier
from ..checkpoints.errors import CheckpointError
from ..checkpoints.published import SCHEME, Published, list_published

# Images from this size on are resized to the square; smaller ones are cropped from one that is 1 / 0.875 as large.
_SQUARE_FROM = 320
_Z95 = 1.96


def verify(pattern: str, imagenet: str | Path, sample: int | None = None) -> str:
    """Evaluate the published classifiers of ImageNet-1k that are on this machine.

    Args:
        pattern: Shell pattern of names of the index.
        imagenet: A folder of images per class, named by its WordNet id: the validation images, or some of them.
        sample: Images to evaluate, drawn evenly from all; None for all.

    Returns:
        A line per file: top-1 in percent with its 95 % interval, and the published figure.

    Raises:
        CheckpointError: No such file is on this machine.
        ValueError: The folder has no images, or folders that are no class of ImageNet-1k.
    """
    rows = [row for row in list_published(pattern) if row.top1 and row.classes == 1000]
    present = [row for row in rows if row.find()]
    if not present:
        names = ', '.join(row.name for row in rows[:4]) or 'none of the index'
        raise CheckpointError(f'no file of {pattern} is on this machine ({names}); `fetch` downloads them')
    return '\n'.join(_verify(row, Path(imagenet), sample) for row in present)


def _verify(row: Published, imagenet: Path, sample: int | None) -> str:
    network = create_classifier(row.backbone, row.classes, f'{SCHEME}{row.name}', **row.options).eval()
    correct, total = count_correct(network, row, imagenet, sample)
    low, high = wilson_interval(correct, total)
    verdict = 'agrees with' if low <= row.top1 <= high else 'DIFFERS from'
    return (
        f'{row.name:46}{100 * correct / total:6.2f} % of {total} images (95 %: {low:.2f} to {high:.2f}), {verdict} the '
        f'published {row.top1}'
    )


@torch.inference_mode()
def count_correct(network: Classifier, row: Published, imagenet: Path, sample: int | None) -> tuple[int, int]:
    """Images that a classifier recognizes, and images evaluated."""
    images, labels = _images(network, row, imagenet)
    total = min(sample or len(images), len(images))
    chosen = Subset(images, [index * len(images) // total for index in range(total)])
    correct = 0
    for batch, folders in DataLoader(chosen, batch_size=16, num_workers=min(4, torch.get_num_threads() - 1)):
        correct += int((network(batch).argmax(1) == labels[folders]).sum())
    return correct, total


def _images(network: Classifier, row: Published, imagenet: Path) -> tuple[ImageFolder, torch.Tensor]:
    """Prepared images by folder, and the class of every folder."""
    try:
        images = ImageFolder(str(imagenet), _preparation(network, row))
    except FileNotFoundError as error:
        raise ValueError(f'{imagenet} has no images: expected a folder per class, n01440764/*.JPEG ...') from error
    classes = {name: index for index, name in enumerate(ImageNetInfo('imagenet-1k').label_names())}
    if unknown := [name for name in images.classes if name not in classes]:
        raise ValueError(f'{imagenet / unknown[0]} is no class of ImageNet-1k: expected WordNet ids such as n01440764')
    return images, torch.tensor([classes[name] for name in images.classes])


def _preparation(network: Classifier, row: Published) -> v2.Compose:
    size = row.size or 224
    resize = (size, size) if size >= _SQUARE_FROM else round(size / 0.875)
    backbone = network.backbone
    mean, std = ((127.5,) * 3,) * 2 if row.symmetric_images else (backbone.image_mean, backbone.image_std)
    return v2.Compose(
        [
            v2.Resize(resize, InterpolationMode.BICUBIC),
            v2.CenterCrop(size),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32),
            v2.Normalize(mean, std),
        ]
    )


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """95 % interval of a proportion, in percent (Wilson 1927)."""
    share, z2 = correct / total, _Z95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return 100 * (centre - half), 100 * (centre + half)
