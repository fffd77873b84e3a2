"""Is an exported file right? It is run beside PyTorch at sizes that were not traced, and compared number by number."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..datasets.scenes import draw_scene
from .preprocessing import Preprocessing

# Largest differences for detections above SCORE: boxes in pixels, scores, and masks' intersection over union; and of
# logits, relative to the largest one.
LIMITS = {
    'float32': dict(box=0.01, score=1e-4, mask_iou=0.999, logits=1e-4),
    'float16': dict(box=2.0, score=0.02, mask_iou=0.95, logits=1e-2),
}
SCORE = 0.05
_STRIDE = 32
_DRAWN = 3
_SIDE = 160


def image_batches(given: Sequence[np.ndarray] = ()) -> Iterator[np.ndarray]:
    """Batches (N, H, W, 3) uint8 RGB: odd, portrait, landscape, a pixel more and less than strides, and two images.

    Args:
        given: Images (H, W, 3) to cut them from; by default scenes of the embedded dataset are drawn.
    """
    images = list(given) or [draw_scene(_SIDE, 1, 7, index).image[..., ::-1] for index in range(_DRAWN)]
    for index, change in enumerate((_odd, _portrait, _landscape, _more, _less)):
        image = images[index % len(images)]
        yield cut(image, *change(*image.shape[:2]))[np.newaxis]
    height, width = np.min([image.shape[:2] for image in images], axis=0)
    yield np.stack([cut(images[0], height, width), cut(images[-1][:, ::-1], height, width)])


def _odd(height: int, width: int) -> tuple[int, int]:
    return height - 1 + height % 2, width - 1 + width % 2


def _portrait(height: int, width: int) -> tuple[int, int]:
    return height, max(width * 5 // 8, _STRIDE)


def _landscape(height: int, width: int) -> tuple[int, int]:
    return max(height * 5 // 8, _STRIDE), width


def _less(height: int, width: int) -> tuple[int, int]:
    return max(height // _STRIDE * _STRIDE, 2 * _STRIDE) - 1, max(width // _STRIDE * _STRIDE, 2 * _STRIDE) - 1


def _more(height: int, width: int) -> tuple[int, int]:
    return max((height - 1) // _STRIDE, 1) * _STRIDE + 1, max((width - 1) // _STRIDE, 1) * _STRIDE + 1


def cut(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The upper left part of an image, which is repeated by reflection where it is too small."""
    missing = [(0, max(height - image.shape[0], 0)), (0, max(width - image.shape[1], 0)), (0, 0)]
    return np.ascontiguousarray(np.pad(image, missing, mode='symmetric')[:height, :width])


@torch.no_grad()
def predict(model: nn.Module, preprocessing: Preprocessing, images: np.ndarray) -> list[Any]:
    """What the model of mmdet or mmseg itself says of the pixels that the file's preprocessing gives it.

    Args:
        images: (N, H, W, 3) RGB.
    """
    inputs, size, original = preprocessing(torch.from_numpy(images))
    (height, width), ori_shape, pad_shape = size.tolist(), tuple(original.tolist()), tuple(inputs.shape[2:])
    meta = dict(
        ori_shape=ori_shape,
        img_shape=(height, width),
        pad_shape=pad_shape,
        batch_input_shape=pad_shape,
        scale_factor=(width / ori_shape[1], height / ori_shape[0]),
        padding_size=[0, pad_shape[1] - width, 0, pad_shape[0] - height],
    )
    return model.predict(inputs, [_sample(model)(metainfo=dict(meta)) for _ in images])


def results_of(sample: BaseDataElement) -> dict[str, np.ndarray]:
    """What mmdet or mmseg says of one image, in the form of an exported file's results, with the axis N."""
    if hasattr(sample, 'seg_logits'):
        return dict(logits=_array(sample.seg_logits.data), labels=_array(sample.pred_sem_seg.data[0]))
    found = sample.pred_instances
    results = dict(boxes=found.bboxes, scores=found.scores, labels=found.labels)
    if 'masks' in found:
        results['masks'] = found.masks
    return {name: _array(values) for name, values in results.items()}


def _array(values: Tensor) -> np.ndarray:
    """(1, ...) of (...); NumPy has no bfloat16."""
    return (values.float() if values.is_floating_point() else values).numpy()[np.newaxis]


def _sample(model: nn.Module) -> type[BaseDataElement]:
    """The class of data samples of mmdet or mmseg."""
    if hasattr(model, 'decode_head'):
        from mmseg.structures import SegDataSample

        return SegDataSample
    from mmdet.structures import DetDataSample

    return DetDataSample


def compare(
    model: nn.Module,
    preprocessing: Preprocessing,
    deployed: Callable[[np.ndarray], dict[str, np.ndarray]],
    images: np.ndarray,
) -> dict[str, float]:
    """The largest differences between a file, or what gives such results, and its model on a batch of images.

    Returns:
        `detections` compared, those `missing` in either, and differences in `box` pixels and `score`, and the least
        `mask_iou`; or, of a segmentor, `pixels`, those of `other_class`, and the relative difference of `logits`.
    """
    truth = predict(model, preprocessing, images)
    results = deployed(images)
    if 'logits' in results:
        return _compare_segmentation(truth, results)
    if 'masks' in results and results['masks'].dtype != bool:
        results = dict(results, masks=None)
    found = [_compare_detections(sample.pred_instances, results, index) for index, sample in enumerate(truth)]
    return worst(found)


def worst(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """Counts added up, and of every difference the largest, of the masks' overlap the least."""
    choose = dict(detections=sum, missing=sum, pixels=sum, other_class=sum, mask_iou=min)
    return {name: choose.get(name, max)([one[name] for one in found]) for name in found[0]}


def _compare_segmentation(truth: list[Any], results: dict[str, np.ndarray]) -> dict[str, float]:
    logits = torch.stack([sample.seg_logits.data for sample in truth]).numpy()
    labels = torch.stack([sample.pred_sem_seg.data[0] for sample in truth]).numpy()
    difference = np.abs(logits - results['logits']).max() / np.abs(logits).max()
    return dict(pixels=labels.size, other_class=int((labels != results['labels']).sum()), logits=float(difference))


def _compare_detections(truth: Any, results: dict[str, Any], index: int) -> dict[str, float]:
    boxes, scores, labels = (torch.from_numpy(results[name][index]) for name in ('boxes', 'scores', 'labels'))
    expected, actual = (truth.scores > SCORE).nonzero()[:, 0], (scores > SCORE).nonzero()[:, 0]
    pairs = _pairs(
        (truth.bboxes[expected], truth.scores[expected], truth.labels[expected]),
        (boxes[actual], scores[actual], labels[actual]),
    )
    first, second = expected[[i for i, _ in pairs]], actual[[j for _, j in pairs]]
    found = dict(
        detections=len(expected),
        missing=len(expected) + len(actual) - 2 * len(pairs),
        box=_largest(truth.bboxes[first] - boxes[second]),
        score=_largest(truth.scores[first] - scores[second]),
    )
    if results.get('masks') is not None:
        masks = torch.from_numpy(results['masks'][index])
        found['mask_iou'] = _least_overlap(truth.masks[first], masks[second])
    return found


def _pairs(truth: tuple[Tensor, Tensor, Tensor], file: tuple[Tensor, Tensor, Tensor]) -> list[tuple[int, int]]:
    """Detections of one class whose boxes are within a pixel, each once, the nearest first."""
    if not len(truth[0]) or not len(file[0]):
        return []
    distance = (truth[0][:, None] - file[0]).abs().amax(-1) + (truth[1][:, None] - file[1]).abs()
    distance[truth[2][:, None] != file[2]] = torch.inf
    pairs, taken = [], (set(), set())
    for place in distance.flatten().argsort().tolist():
        i, j = divmod(place, distance.shape[1])
        if distance[i, j] > 1:
            break
        if i not in taken[0] and j not in taken[1]:
            pairs.append((i, j))
            taken[0].add(i)
            taken[1].add(j)
    return pairs


def _largest(difference: Tensor) -> float:
    return float(difference.abs().max()) if difference.numel() else 0.0


def _least_overlap(truth: Tensor, masks: Tensor) -> float:
    """The least intersection over union; 1 for masks that differ in a pixel, on which rounding may decide."""
    if not len(truth):
        return 1.0
    both, either = (truth & masks).flatten(1).sum(1), (truth | masks).flatten(1).sum(1)
    return float(torch.where(either - both > 1, both / either.clamp(min=1), 1.0).min())


def failures(found: dict[str, float], precision: str) -> list[str]:
    """Which differences are beyond the limits, in words; none if the file is right."""
    limits = LIMITS[precision]
    wrong = [
        f'{name} differ by {found[name]:.2g}, at most {limits[name]:g} is allowed'
        for name in ('box', 'score', 'logits')
        if name in found and not found[name] <= limits[name]
    ]
    if not found.get('mask_iou', 1.0) >= limits['mask_iou']:
        wrong.append(f'masks overlap by {found["mask_iou"]:.4f}, at least {limits["mask_iou"]} is needed')
    if precision == 'float32' and found.get('missing'):
        wrong.append(f'{found["missing"]} of {found["detections"]} detections are in one of the two alone')
    return wrong
