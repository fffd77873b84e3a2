"""Types of detection errors, and what each costs in AP, as TIDE has them (arXiv 2008.08115, MIT).

At IoU 0.5 every detection is a true positive or has one error: of class, box, both, a duplicate, or background; objects
without a detection that would be right but for one error are missed. The cost of a type is the AP that is gained when
its errors, and no others, are corrected. Differences from tidecv 1.0: AP is over the classes that have objects, and
precision is interpolated at 101 recalls as COCO's.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

FOREGROUND, BACKGROUND = 0.5, 0.1
# Cls, Loc, Both, Dupe, Bkg of the paper; its Miss is of objects.
KINDS = ('class', 'box', 'class and box', 'duplicate', 'background')
MAX_DETECTIONS = 100


@dataclass
class Detection:
    """A detection and what it was matched to.

    Args:
        image, category, box, score: As in COCO's results; box `(x, y, width, height)`.
        error: '' for a true positive, else one of :data:`KINDS`.
        object_id: Of the annotation that it matches, or would match but for its error; None for none.
    """

    image: int
    category: int
    box: list[float]
    score: float
    error: str = ''
    object_id: int | None = None


@dataclass
class Matching:
    """All detections, objects by id, and the ids of those that were missed."""

    detections: list[Detection]
    objects: dict[int, dict]
    missed: set[int]

    def average_precision(self, corrected: str = '') -> float:
        """Mean AP at IoU 0.5, after the errors of a type, or 'missed' ones, are corrected."""
        positives: dict[int, int] = defaultdict(int)
        for key, thing in self.objects.items():
            positives[thing['category_id']] += not (corrected == 'missed' and key in self.missed)
        scored: dict[int, list[tuple[float, bool]]] = defaultdict(list)
        taken = {d.object_id for d in self.detections if not d.error}
        for detection in self.detections:
            category, right = detection.category, not detection.error
            if corrected and detection.error == corrected:
                if corrected not in KINDS[:2] or detection.object_id in taken:
                    continue
                taken.add(detection.object_id)
                category, right = self.objects[detection.object_id]['category_id'], True
            scored[category].append((detection.score, right))
        values = [_precision(scored[category], count) for category, count in positives.items() if count]
        return float(np.mean(values)) if values else float('nan')

    def costs(self) -> dict[str, tuple[int, float]]:
        """Number of errors of each type, and the AP that correcting them gains."""
        before = self.average_precision()
        counts = {kind: sum(d.error == kind for d in self.detections) for kind in KINDS} | {'missed': len(self.missed)}
        return {kind: (count, self.average_precision(kind) - before) for kind, count in counts.items()}


def match(truth: COCO, results: Iterable[dict]) -> Matching:
    """Match detections of COCO's results format to the objects of an annotation file."""
    by_image: dict[int, list[Detection]] = defaultdict(list)
    for result in results:
        detection = Detection(result['image_id'], result['category_id'], result['bbox'], result['score'])
        by_image[detection.image].append(detection)
    matching = Matching([], {}, set())
    for image in truth.getImgIds():
        found = sorted(by_image[image], key=lambda d: -d.score)[:MAX_DETECTIONS]
        _match_image(matching, found, truth.imgToAnns[image])
    matching.detections.sort(key=lambda d: -d.score)
    return matching


def _match_image(matching: Matching, found: list[Detection], annotations: list[dict]) -> None:
    objects = [annotation for annotation in annotations if not annotation.get('iscrowd')]
    crowds = [annotation for annotation in annotations if annotation.get('iscrowd')]
    ious = _ious(found, objects, crowd=False)
    in_crowd = _ious(found, crowds, crowd=True)
    matched: set[int] = set()
    rest = []
    for i, detection in enumerate(found):
        same = np.array([thing['category_id'] == detection.category for thing in objects], bool)
        free = np.array([j not in matched for j in range(len(objects))], bool)
        candidates = np.where(same & free, ious[i], 0)
        if len(objects) and candidates.max() >= FOREGROUND:
            j = int(candidates.argmax())
            matched.add(j)
            detection.object_id = objects[j]['id']
            matching.detections.append(detection)
        elif not _in_crowd(detection, crowds, in_crowd[i]):
            rest.append((detection, ious[i], same))
    for detection, row, same in rest:
        detection.error, j = _error(row, same)
        detection.object_id = None if j is None else objects[j]['id']
        matching.detections.append(detection)
    explained = {d.object_id for d, _, _ in rest if d.error in KINDS[:2]}
    matching.objects |= {thing['id']: thing for thing in objects}
    matching.missed |= {t['id'] for j, t in enumerate(objects) if j not in matched and t['id'] not in explained}


def _in_crowd(detection: Detection, crowds: list[dict], shares: np.ndarray) -> bool:
    """Whether the detection is one of a crowd of its class, and does not count."""
    pairs = zip(crowds, shares, strict=True)
    return any(share >= FOREGROUND and crowd['category_id'] == detection.category for crowd, share in pairs)


def _error(ious: np.ndarray, same: np.ndarray) -> tuple[str, int | None]:
    """Kind of a false positive, and the index of the object that it would match but for that; in TIDE's order."""
    own, other = np.where(same, ious, 0), np.where(same, 0, ious)
    if len(ious) and BACKGROUND <= own.max() < FOREGROUND:
        return 'box', int(own.argmax())
    if len(ious) and other.max() >= FOREGROUND:
        return 'class', int(other.argmax())
    if len(ious) and own.max() >= FOREGROUND:
        return 'duplicate', int(own.argmax())
    return ('background' if not len(ious) or ious.max() < BACKGROUND else 'class and box'), None


def _ious(found: list[Detection], annotations: list[dict], crowd: bool) -> np.ndarray:
    """(detections, annotations); of crowds the share of the detection inside."""
    if not found or not annotations:
        return np.zeros((len(found), len(annotations)))
    boxes = np.array([d.box for d in found], float), np.array([a['bbox'] for a in annotations], float)
    return np.asarray(coco_mask.iou(*boxes, [crowd] * len(annotations)))


def _precision(scored: list[tuple[float, bool]], positives: int) -> float:
    """AP of one class, interpolated at 101 recalls."""
    right = np.array([correct for _, correct in sorted(scored, key=lambda item: -item[0])], float)
    if not len(right):
        return 0.0
    recall = right.cumsum() / positives
    precision = np.maximum.accumulate((right.cumsum() / np.arange(1, len(right) + 1))[::-1])[::-1]
    places = np.searchsorted(recall, np.linspace(0, 1, 101), side='left')
    return float(np.mean([precision[place] if place < len(precision) else 0.0 for place in places]))
