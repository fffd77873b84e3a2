"""A probe of frozen features for detection: linear heads that name the class of a box and say how well it fits.

Candidates of an image are its true boxes, jittered copies of them and boxes of the background. RoIAlign takes 3x3
values of every level's map from each. One linear head predicts the class, background included, another the IoU with
the object; both are BatchNorm and a linear layer, trained as the linear head for segmentation. On the validation
images a candidate's score is the probability of its class times its predicted IoU. After NMS, COCO's AP of these boxes
says how well the features distinguish classes and rank boxes by how well they fit. It is no AP of a detector, which
also has to find the boxes.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn
from torchvision.ops import batched_nms, box_iou, roi_align

from ..intervals import AveragePrecision
from .features import Features, FeaturesError
from .logme import logme
from .training import train_linear

_CELLS = 3
_JITTERED = 4
_JITTER = 0.3
_BACKGROUND = 8
# Of a candidate with the object: below the first it is background to the sampler, from the second on it has its class.
_FAR, _NEAR = 0.3, 0.5
_NMS = 0.5
_BATCH = 256
_LOGME_SAMPLES = 2000


@dataclass(frozen=True)
class DetectionProbe:
    """What frozen features of the training images say of boxes in the validation images.

    Attributes:
        boxes: AP of candidate boxes by class and predicted IoU.
        logme: Of the classes of candidates, background included, of every level, on the training images.
    """

    boxes: AveragePrecision
    logme: tuple[float, ...]


@dataclass(frozen=True)
class Candidates:
    """Boxes of an image in pixels of the network's input.

    Attributes:
        boxes: `(N, 4)`, as corners.
        classes: `(N,)`, the number of classes for background.
        ious: With the nearest object, `(N,)`.
    """

    boxes: Tensor
    classes: Tensor
    ious: Tensor


def probe_detection(train: Features, val: Features, iterations: int = 300, seed: int = 0) -> DetectionProbe:
    """Train on the features of one split and score those of the other.

    Args:
        train, val: Of the same backbone.
        iterations: Of each of the linear heads.
        seed: Of candidates, initial weights and batches.

    Raises:
        FeaturesError: A split has no objects.
    """
    classes = len(train.dataset.metainfo['classes'])
    learned, tested = (_all_candidates(split, classes, seed) for split in (train, val))
    vectors = torch.cat([region_vectors(train, index, part.boxes) for index, part in enumerate(learned)])
    labels, ious = torch.cat([part.classes for part in learned]), torch.cat([part.ious for part in learned])
    named = train_linear(vectors, classes + 1, lambda y, at: F.cross_entropy(y, labels[at]), iterations, _BATCH, seed)
    fitting = train_linear(vectors, 1, lambda y, at: _iou_loss(y[:, 0], ious[at]), iterations, _BATCH, seed)
    found = [_score(val, index, part.boxes, named, fitting) for index, part in enumerate(tested)]
    chosen = np.random.default_rng(seed).permutation(len(labels))[:_LOGME_SAMPLES]
    scores = [logme(part[chosen].numpy(), labels[chosen].numpy()) for part in _by_level(vectors, train.channels)]
    return DetectionProbe(_average_precision(val, found), tuple(scores))


def _iou_loss(predicted: Tensor, ious: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(predicted, ious)


def objects_of(features: Features, index: int) -> tuple[Tensor, Tensor]:
    """Boxes `(N, 4)` in pixels of the network's input and classes `(N,)` of an image's objects, without crowds."""
    information = features.dataset.get_data_info(index)
    found = [part for part in information['instances'] if not part['ignore_flag']]
    boxes = torch.tensor([part['bbox'] for part in found], dtype=torch.float32).reshape(-1, 4)
    height, width = features.entries[index].size
    scale = torch.tensor([width / information['width'], height / information['height']]).repeat(2)
    return boxes * scale, torch.tensor([part['bbox_label'] for part in found], dtype=torch.long)


def _all_candidates(features: Features, classes: int, seed: int) -> list[Candidates]:
    generator = torch.Generator().manual_seed(seed)
    objects = [objects_of(features, index) for index in range(len(features))]
    if not any(len(boxes) for boxes, _ in objects):
        raise FeaturesError(f'no objects in {len(features)} images, expected at least one to learn from and to score')
    return [
        candidates(boxes, labels, entry.size, classes, generator)
        for (boxes, labels), entry in zip(objects, features.entries, strict=True)
    ]


def candidates(
    boxes: Tensor, labels: Tensor, size: tuple[int, int], classes: int, generator: torch.Generator
) -> Candidates:
    """True boxes, jittered ones and background of an image of `size`."""
    jittered = jitter(boxes.repeat_interleave(_JITTERED, 0), size, generator)
    other = _random_boxes(4 * _BACKGROUND, size, generator)
    if len(boxes):
        other = other[box_iou(other, boxes).amax(1) < _FAR]
    proposed = torch.cat([boxes, jittered, other[:_BACKGROUND]])
    if not len(boxes):
        return Candidates(proposed, torch.full((len(proposed),), classes), torch.zeros(len(proposed)))
    ious, nearest = box_iou(proposed, boxes).max(1)
    return Candidates(proposed, torch.where(ious >= _NEAR, labels[nearest], classes), ious)


def jitter(boxes: Tensor, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Boxes moved and scaled by up to `_JITTER` of their sides, clipped to the image."""
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    move, scale = ((2 * torch.rand(2, *sides.shape, generator=generator) - 1) * _JITTER).unbind()
    centres, sides = centres + move * sides, sides * scale.exp()
    return _clip(torch.cat([centres - sides / 2, centres + sides / 2], 1), size)


def _random_boxes(number: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Boxes with sides of a twentieth to a half of the image's."""
    extent = torch.tensor([size[1], size[0]])
    share, place = torch.rand(2, number, 2, generator=generator).unbind()
    sides = (0.05 + 0.45 * share) * extent
    corner = place * (extent - sides)
    return torch.cat([corner, corner + sides], 1)


def _clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    limits = torch.tensor([size[1], size[0]]).repeat(2)
    return torch.minimum(boxes.clamp(min=0), limits)


def region_vectors(features: Features, index: int, boxes: Tensor) -> Tensor:
    """RoIAlign of every level's map, concatenated, `(N, 9 * channels)`."""
    parts = []
    for level in range(len(features.strides)):
        values = features.level(index, level)[None]
        # The same for both sides but for rounding of the map's size.
        scale = values.shape[3] / features.entries[index].padded[1]
        aligned = roi_align(values, [boxes], _CELLS, spatial_scale=scale, sampling_ratio=2, aligned=True)
        parts.append(aligned.flatten(1))
    return torch.cat(parts, 1)


def _by_level(vectors: Tensor, channels: Sequence[int]) -> list[Tensor]:
    """The means over cells of every level's channels."""
    parts = vectors.split([_CELLS**2 * number for number in channels], 1)
    return [part.unflatten(1, (-1, _CELLS**2)).mean(2) for part in parts]


@torch.inference_mode()
def _score(
    features: Features, index: int, boxes: Tensor, named: nn.Module, fitting: nn.Module
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, classes and scores that NMS keeps."""
    vectors = region_vectors(features, index, boxes)
    probability, which = named(vectors).softmax(1)[:, :-1].max(1)
    scores = probability * fitting(vectors)[:, 0].sigmoid()
    kept = batched_nms(boxes, scores, which, _NMS)
    return boxes[kept], which[kept], scores[kept]


def _average_precision(features: Features, found: Sequence[tuple[Tensor, Tensor, Tensor]]) -> AveragePrecision:
    annotations = []
    for index in range(len(features)):
        boxes, classes = objects_of(features, index)
        for box, label in zip(_as_coco(boxes), classes.tolist(), strict=True):
            area = box[2] * box[3]
            number = len(annotations) + 1
            annotations.append(dict(id=number, image_id=index, category_id=label, bbox=box, area=area, iscrowd=0))
    truth = COCO()
    truth.dataset = dict(
        images=[dict(id=index) for index in range(len(features))],
        categories=[dict(id=label, name=name) for label, name in enumerate(features.dataset.metainfo['classes'])],
        annotations=annotations,
    )
    results = [
        dict(image_id=index, category_id=label, bbox=box, score=score)
        for index, (boxes, classes, scores) in enumerate(found)
        for box, label, score in zip(_as_coco(boxes), classes.tolist(), scores.tolist(), strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), 'bbox')
        evaluation.evaluate()
    scored = AveragePrecision.from_coco(evaluation)
    scored.images = features.images
    return scored


def _as_coco(boxes: Tensor) -> list[list[float]]:
    """Corners as `[x, y, width, height]`."""
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).tolist()
