"""COCO annotations and results drawn at random: crowds, empty images, small to large objects, equal scores."""

import contextlib
import io

import numpy as np
import torch
from pycocotools import mask as masks
from pycocotools.coco import COCO

SIZE = 400  # of an image, in pixels
# Of objects, so that all three of COCO's ranges of areas have some.
SIDES = (12, 380)


def draw(
    seed: int, *, images: int = 12, categories: int = 3, objects: float = 4, ties: bool = False
) -> tuple[dict, list[dict]]:
    """An annotation file and results with boxes and masks; some images have no objects, some no detections.

    Args:
        objects: Mean number by image.
        ties: Scores of one digit.
    """
    rng = np.random.default_rng(seed)
    truth = dict(
        images=[dict(id=i, file_name=f'{i}.jpg', width=SIZE, height=SIZE) for i in range(1, images + 1)],
        categories=[dict(id=2 * k + 1, name=f'class {k}') for k in range(categories)],
        annotations=[],
    )
    results: list[dict] = []
    for image in truth['images']:
        for _ in range(rng.poisson(objects)):
            box, category = _box(rng), 2 * int(rng.integers(categories)) + 1
            shape = _rle(rng, box)
            truth['annotations'].append(
                dict(
                    id=len(truth['annotations']) + 1,
                    image_id=image['id'],
                    category_id=category,
                    bbox=box,
                    segmentation=shape,
                    area=float(masks.area(shape)),
                    iscrowd=int(rng.random() < 0.1),
                )
            )
            for _ in range(rng.integers(3)):
                other = 2 * int(rng.integers(categories)) + 1 if rng.random() < 0.2 else category
                results.append(_detection(rng, image['id'], other, _moved(rng, box)))
        for _ in range(rng.poisson(1)):
            results.append(_detection(rng, image['id'], 2 * int(rng.integers(categories)) + 1, _box(rng)))
    if ties:
        results = [dict(result, score=round(result['score'], 1)) for result in results]
    return truth, results


def load(truth: dict, results: list[dict]) -> tuple[COCO, COCO]:
    """Both as pycocotools reads them, without its messages."""
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = COCO()
        annotations.dataset = truth
        annotations.createIndex()
        return annotations, annotations.loadRes([dict(result) for result in results])


def _box(rng: np.random.Generator) -> list[float]:
    width, height = np.exp(rng.uniform(*np.log(SIDES), 2))
    return [float(v) for v in (rng.uniform(0, SIZE - width), rng.uniform(0, SIZE - height), width, height)]


def _moved(rng: np.random.Generator, box: list[float]) -> list[float]:
    x, y, width, height = box
    noise = rng.normal(0, 0.08, 4)
    width, height = min(width * np.exp(noise[2]), SIZE), min(height * np.exp(noise[3]), SIZE)
    x, y = np.clip(x + noise[0] * width, 0, SIZE - width), np.clip(y + noise[1] * height, 0, SIZE - height)
    return [float(v) for v in (x, y, width, height)]


def _rle(rng: np.random.Generator, box: list[float]) -> dict:
    """An ellipse in the box, or a triangle."""
    x, y, width, height = box
    angles = np.linspace(0, 2 * np.pi, 3 if rng.random() < 0.2 else 24, endpoint=False)
    points = np.stack([x + width * (1 + np.cos(angles)) / 2, y + height * (1 + np.sin(angles)) / 2], 1)
    rle = masks.frPyObjects([points.ravel().tolist()], SIZE, SIZE)[0]
    return dict(rle, counts=rle['counts'].decode())


def _detection(rng: np.random.Generator, image: int, category: int, box: list[float]) -> dict:
    score = float(rng.uniform(0.05, 1))
    return dict(image_id=image, category_id=category, bbox=box, segmentation=_rle(rng, box), score=score)


def detections(image: int, results: list[dict]) -> dict:
    """An image's detections as MMDetection's models give them."""
    own = [result for result in results if result['image_id'] == image]
    boxes = torch.tensor([r['bbox'] for r in own]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    instances = dict(
        bboxes=boxes,
        scores=torch.tensor([r['score'] for r in own]),
        labels=torch.tensor([r['category_id'] // 2 for r in own]),
        masks=[dict(r['segmentation']) for r in own],
    )
    return dict(img_id=image, ori_shape=(SIZE, SIZE), pred_instances=instances)
