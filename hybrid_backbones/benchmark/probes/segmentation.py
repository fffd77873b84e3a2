"""Probes of frozen features for segmentation: a linear head, nearest neighbours, and LogME of every level.

The linear head is that of DINOv3 (arXiv 2508.10104; https://github.com/facebookresearch/dinov3, DINOv3 License):
Dropout2d of 0.1, BatchNorm and a 1x1 convolution on maps that are resized to the first one's size and concatenated,
trained by AdamW with a learning rate of 1e-3, weight decay of 1e-3 and gradients clipped at a norm of 35, by a linear
warm-up and a cosine, in batches of 16 images, on the cross-entropy of logits that are resized to the label map.

Differences from it: a few hundred iterations in place of 40,000, with the same share of warm-up; whole images through
the test pipeline in place of augmented crops, since features are computed once; beta1 stays 0.9. A plain network has
one stride of 16; of a pyramid, all levels from stride 8 on are concatenated, at the size of the finest of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..intervals import MeanIoU, class_areas
from .features import Features, FeaturesError
from .logme import logme
from .training import fit

_MIN_STRIDE = 8
_BATCH = 16
# Nearest neighbours as DINO (arXiv 2104.14294) votes with them.
_NEIGHBOURS = 20
_TEMPERATURE = 0.07
_BANK = 5000
_LOGME_SAMPLES = 2000


@dataclass(frozen=True)
class SegmentationProbe:
    """What frozen features of the training images say of the validation images.

    Attributes:
        linear: mIoU of the linear head.
        neighbours: mIoU of nearest neighbours.
        logme: Of every level of the backbone, on the training images.
    """

    linear: MeanIoU
    neighbours: MeanIoU
    logme: tuple[float, ...]


def probe_segmentation(train: Features, val: Features, iterations: int = 300, seed: int = 0) -> SegmentationProbe:
    """Train on the features of one split and score those of the other.

    Args:
        train, val: Of the same backbone.
        iterations: Of the linear head.
        seed: Of its initial weights, its batches and the samples.

    Raises:
        FeaturesError: The training images have labels of fewer than two classes.
    """
    linear = linear_probe(train, val, iterations, seed)
    labels, classes, ignored = _labels(train)
    bank = sample_vectors(train, labels, levels_of(train), _BANK, ignored, seed)
    neighbours = _scored(val, lambda maps: _votes(joined(maps), bank, classes), classes, ignored)
    scores = [
        logme(*sample_vectors(train, labels, [level], _LOGME_SAMPLES, ignored, seed))
        for level in range(len(train.strides))
    ]
    return SegmentationProbe(linear, neighbours, tuple(scores))


def linear_probe(train: Features, val: Features, iterations: int = 300, seed: int = 0) -> MeanIoU:
    """mIoU of the linear head alone; arguments and errors of :func:`probe_segmentation`."""
    labels, classes, ignored = _labels(train)
    head = train_head(train, labels, classes, ignored, iterations, seed)
    with torch.inference_mode():
        return _scored(val, lambda maps: head([maps])[0], classes, ignored)


def _labels(train: Features) -> tuple[list[np.ndarray], int, int]:
    """Label maps of all images, the number of classes, and the label that does not count."""
    ignored = train.dataset.ignore_index
    labels = [label_map(train, index) for index in range(len(train))]
    present = np.unique(np.concatenate([np.unique(label) for label in labels]))
    if (found := np.count_nonzero(present != ignored)) < 2:
        raise FeaturesError(f'the training images have labels of {found} class, expected at least 2 to tell apart')
    return labels, len(train.dataset.metainfo['classes']), ignored


def _scored(val: Features, predict: Callable[[list[Tensor]], Tensor], classes: int, ignored: int) -> MeanIoU:
    areas = [
        _areas(predict(_maps(val, index)), val, index, label_map(val, index), classes, ignored)
        for index in range(len(val))
    ]
    return _mean_iou(val, areas)


class LinearHead(nn.Module):
    """Dropout2d, BatchNorm and a 1x1 convolution on concatenated maps; images of a batch may differ in size.

    Args:
        channels: Of the concatenated maps.
        classes: Number of logits.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(0.1)
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, classes, 1)
        nn.init.normal_(self.conv.weight, std=0.01)
        nn.init.zeros_(self.conv.bias)

    def forward(self, images: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Logits `(K, H, W)` of every image at the size of its first map.

        Args:
            images: The maps `(C, H, W)` of every image.
        """
        maps = [self.dropout(joined(levels)[None])[0] for levels in images]
        # All positions of all images in one row, over which BatchNorm takes its statistics.
        logits = self.conv(self.norm(torch.cat([x.flatten(1) for x in maps], 1)[None, :, None]))[0, :, 0]
        parts = logits.split([x[0].numel() for x in maps], 1)
        return [part.unflatten(1, x.shape[1:]) for part, x in zip(parts, maps, strict=True)]


def joined(levels: Sequence[Tensor]) -> Tensor:
    """Maps `(C_i, H_i, W_i)` resized to the first one's size and concatenated."""
    size = levels[0].shape[1:]
    return torch.cat([_resize(level, size) for level in levels])


def train_head(
    features: Features, labels: Sequence[np.ndarray], classes: int, ignored: int, iterations: int, seed: int
) -> LinearHead:
    """The linear head after `iterations`, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = LinearHead(sum(features.channels[level] for level in levels_of(features)), classes)
        # Labels at the size of the image that the backbone sees: larger ones cost time and say nothing more.
        targets = [_resize_labels(label, features.entries[index].size) for index, label in enumerate(labels)]
        # An image without labels has no loss.
        usable = torch.tensor([index for index, target in enumerate(targets) if (target != ignored).any()])

        def loss_of_step() -> Tensor:
            batch = usable[torch.randperm(len(usable))[:_BATCH]].tolist()
            return _loss(head, features, batch, [targets[index] for index in batch], ignored)

        fit(head, loss_of_step, iterations)
    return head.eval()


def _loss(
    head: LinearHead, features: Features, batch: Sequence[int], targets: Sequence[Tensor], ignored: int
) -> Tensor:
    logits = head([_maps(features, index) for index in batch])
    flat = [_upsample(x, features, index).flatten(1) for x, index in zip(logits, batch, strict=True)]
    target = torch.cat([target.flatten() for target in targets])
    return F.cross_entropy(torch.cat(flat, 1).T, target, ignore_index=ignored)


def levels_of(features: Features) -> list[int]:
    """The levels that are concatenated: those of stride 8 and more."""
    return [level for level, stride in enumerate(features.strides) if stride >= _MIN_STRIDE]


def label_map(features: Features, index: int) -> np.ndarray:
    """The label map of an image, `(H, W)`, at the size at which the config scores it."""
    return features.annotation(index).gt_sem_seg.data[0].numpy()


def sample_vectors(
    features: Features, labels: Sequence[np.ndarray], levels: Sequence[int], number: int, ignored: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """About `number` feature vectors `(N, C)` with the labels at their centres, `(N,)`, evenly from all images."""
    generator = np.random.default_rng(seed)
    each = max(1, number // len(features))
    vectors, found = [], []
    for index in range(len(features)):
        values = joined([features.level(index, level) for level in levels])
        cells = _labels_of_cells(labels[index], features, index, values.shape[1:]).ravel()
        valid = np.flatnonzero(cells != ignored)
        chosen = generator.choice(valid, min(each, len(valid)), replace=False)
        vectors.append(values.flatten(1)[:, chosen].T.numpy())
        found.append(cells[chosen])
    return np.concatenate(vectors), np.concatenate(found)


def _labels_of_cells(label: np.ndarray, features: Features, index: int, grid: Sequence[int]) -> np.ndarray:
    """The label at the centre of every cell of a map, 255 where that lies in the padding, `(H, W)`."""
    entry = features.entries[index]
    rows, columns = (
        np.floor((np.arange(cells) + 0.5) / cells * padded / size * length).astype(int)
        for cells, padded, size, length in zip(grid, entry.padded, entry.size, label.shape, strict=True)
    )
    inside = (rows < label.shape[0])[:, None] & (columns < label.shape[1])
    at = label[np.minimum(rows, label.shape[0] - 1)[:, None], np.minimum(columns, label.shape[1] - 1)]
    return np.where(inside, at, features.dataset.ignore_index)


def _votes(values: Tensor, bank: tuple[np.ndarray, np.ndarray], classes: int) -> Tensor:
    """Shares of the votes of the nearest neighbours for every class, `(K, H, W)`, by cosine similarity.

    Args:
        values: Concatenated maps, `(C, H, W)`.
        bank: Vectors `(N, C)` and their labels `(N,)`.
    """
    vectors, labels = map(torch.from_numpy, bank)
    similarity = F.normalize(values.flatten(1), dim=0).T @ F.normalize(vectors, dim=1).T
    near, which = similarity.topk(min(_NEIGHBOURS, len(labels)))
    votes = torch.zeros(len(near), classes)
    votes.scatter_add_(1, labels.long()[which], (near / _TEMPERATURE).softmax(1))
    return votes.T.reshape(classes, *values.shape[1:])


def _maps(features: Features, index: int) -> list[Tensor]:
    return [features.level(index, level) for level in levels_of(features)]


def _upsample(logits: Tensor, features: Features, index: int) -> Tensor:
    """Logits at the size of the image that the backbone saw, without padding."""
    entry = features.entries[index]
    return _resize(logits, entry.padded)[:, : entry.size[0], : entry.size[1]]


def _resize(values: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(values[None], size=tuple(size), mode='bilinear', align_corners=False)[0]


def _resize_labels(label: np.ndarray, size: Sequence[int]) -> Tensor:
    return F.interpolate(torch.from_numpy(label)[None, None].float(), size=tuple(size), mode='nearest')[0, 0].long()


def _areas(
    logits: Tensor, features: Features, index: int, truth: np.ndarray, classes: int, ignored: int
) -> tuple[np.ndarray, np.ndarray]:
    prediction = _resize(_upsample(logits, features, index), truth.shape).argmax(0).numpy()
    return class_areas(truth, prediction, classes=classes, ignored=ignored)


def _mean_iou(features: Features, areas: Sequence[tuple[np.ndarray, np.ndarray]]) -> MeanIoU:
    intersections, unions = (np.stack(part) for part in zip(*areas, strict=True))
    return MeanIoU(features.images, intersections, unions)
