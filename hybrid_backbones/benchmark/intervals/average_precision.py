"""COCO's AP from the matches of every image, without matching again.

Matching is done image by image, so a redraw keeps every image's matches. What remains of AP is to merge the images'
detections by score and to accumulate: the order by score is computed once; a redraw only changes how often each
detection counts.

Of the precision-recall curve only its points at true positives matter: a false positive lowers the precision at equal
recall, and AP takes the highest precision at a recall or above. These points are held as one flat array over all
categories and IoU thresholds ("curves"), each closed by a point of precision 0 for recalls that are not reached; so a
redraw is a handful of array operations.

Copies of an image are merged by score as copies of its detections, one next to the other. pycocotools, given the image
several times, would put equal scores of one category in one image in another order; it is arbitrary for equal scores.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from pycocotools.cocoeval import COCOeval

from .bootstrap import CONFIDENCE, REDRAWS, Interval, interval

# Area of the objects, and IoU threshold (None: the mean over all).
METRICS: dict[str, tuple[str, float | None]] = {
    'AP': ('all', None),
    'AP50': ('all', 0.5),
    'AP75': ('all', 0.75),
    'APs': ('small', None),
    'APm': ('medium', None),
    'APl': ('large', None),
}
# By image and category, of those that count for AP.
_DETECTIONS = 100
# Points of curves that are computed at once: the arrays stay in a processor's cache.
_BATCH = 2**18


@dataclass(frozen=True)
class Detections:
    """D detections with their matches at T IoU thresholds, in the order of their images.

    Attributes:
        image, category: Indices, `(D,)`.
        score: `(D,)`.
        matched: Whether an object is matched, `(T, D)`.
        ignored: Neither a true nor a false positive: matched to a crowd, or outside the range of areas, `(T, D)`.
    """

    image: np.ndarray
    category: np.ndarray
    score: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray

    def by_score(self) -> 'Detections':
        """Those that count at any threshold, ordered by category and falling score; equal scores keep their order."""
        order = np.lexsort((-self.score, self.category))
        order = order[~self.ignored.all(0)[order]]
        return Detections(
            self.image[order],
            self.category[order],
            self.score[order],
            self.matched[:, order],
            self.ignored[:, order],
        )


class AveragePrecision:
    """AP between 0 and 1 as pycocotools computes it, of any redraw of the images; see :class:`.PerImage`.

    Args:
        images: Identifiers, I of them.
        objects: Number of objects by image and category that are not ignored, `(I, C)`.
        detections: Of all images.
        recalls: At which the precision is read, `(101,)` in COCO, rising from 0.
    """

    def __init__(
        self, images: tuple[Hashable, ...], objects: np.ndarray, detections: Detections, recalls: np.ndarray
    ) -> None:
        self.images = tuple(images)
        self.objects = np.asarray(objects, np.float64)
        self.recalls = np.asarray(recalls)
        self.thresholds = len(detections.matched)
        self.detections = detections = detections.by_score()
        # An additional image that is never drawn holds the last points of the curves.
        self._detection_image = detections.image
        self._first_detection = np.searchsorted(detections.category, np.arange(self.categories))
        self._lay_out_curves(detections)

    @property
    def categories(self) -> int:
        return self.objects.shape[1]

    @classmethod
    def from_coco(cls, evaluation: COCOeval, *, metric: str = 'AP') -> 'AveragePrecision':
        """From the matches of pycocotools, or of hotcoco, whose `evalImgs` have the same keys.

        As in its summary, at most 100 detections by image and category count for `AP`, and the largest of its
        `maxDets` (100 too, in MMDetection 1000) for the other metrics.

        Args:
            evaluation: After `evaluate()`; boxes or masks.
            metric: A key of `METRICS`.

        Raises:
            ValueError: Unknown metric, or `evaluate()` was not called.
        """
        if metric not in METRICS:
            raise ValueError(f'unknown metric {metric!r}, expected one of {", ".join(METRICS)}')
        if not evaluation.evalImgs:
            raise ValueError('the evaluation has no matches yet: call its evaluate() first')
        area, iou = METRICS[metric]
        params = evaluation.params
        most = _DETECTIONS if metric == 'AP' else params.maxDets[-1]
        chosen = np.full(len(params.iouThrs), True) if iou is None else np.isclose(params.iouThrs, iou)
        found = _of_area(evaluation, params.areaRng[params.areaRngLbl.index(area)])
        objects, detections = _collect(found, (len(params.imgIds), len(params.catIds)), chosen, most)
        return cls(tuple(params.imgIds), objects, detections, params.recThrs)

    def scores(self, counts: np.ndarray) -> np.ndarray:
        """AP of redraws, `(R,)`; NaN if no object is drawn."""
        batch = max(1, _BATCH // len(self._image))
        parts = [self.by_category(counts[start : start + batch]) for start in range(0, len(counts), batch)]
        by_category = np.concatenate(parts)
        present = ~np.isnan(by_category)
        number = present.sum(1)
        total = np.where(present, by_category, 0).sum(1)
        return np.divide(total, number, out=np.full(len(counts), np.nan), where=number > 0)

    def by_category(self, counts: np.ndarray) -> np.ndarray:
        """AP of redraws by category, the mean over IoU thresholds, `(R, C)`; NaN for categories without objects."""
        counts = np.pad(counts.astype(np.float64), ((0, 0), (0, 1)))
        objects = counts[:, :-1] @ self.objects
        before, true = self._true_positives(counts)
        precision = (true - before[:, self._curve]) / (self._positives(counts) + np.spacing(1))
        precision[:, self._last] = 0
        at = self._points_at_recalls(objects, before, true)
        # The highest precision from one recall to the next, then at a recall or above.
        highest = np.maximum.reduceat(precision.ravel(), at.ravel()).reshape(at.shape)
        highest = np.maximum.accumulate(highest[..., ::-1], axis=-1)
        means = highest.mean(-1).reshape(len(counts), self.categories, self.thresholds).mean(-1)
        return np.where(objects > 0, means, np.nan)

    def _lay_out_curves(self, detections: Detections) -> None:
        """Curve c is category c // T at IoU threshold c % T; its points are its true positives and the last one."""
        curves, number = self.categories * self.thresholds, len(detections.image)
        threshold, position = np.nonzero(detections.matched & ~detections.ignored)
        curve = np.concatenate([detections.category[position] * self.thresholds + threshold, np.arange(curves)])
        position = np.concatenate([position, np.full(curves, number)])
        # The last points are those of an additional image that is never drawn.
        image = np.concatenate([detections.image[position[:-curves]], np.full(curves, len(self.images))])
        order = np.argsort(curve, kind='stable')
        self._curve, self._position, self._image = curve[order], position[order], image[order]
        self._first = np.searchsorted(self._curve, np.arange(curves))
        self._last = np.append(self._first[1:], len(order)) - 1

        threshold, position = np.nonzero(detections.ignored)
        key = (detections.category[position] * self.thresholds + threshold) * (number + 1) + position
        order = np.argsort(key)
        self._ignored_image = detections.image[position[order]]
        # How many ignored detections there are before a curve, and up to each point of it.
        self._ignored_before = np.searchsorted(key[order], np.arange(curves) * (number + 1))
        self._ignored_up_to = np.searchsorted(key[order], self._curve * (number + 1) + self._position)

    def _true_positives(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """True positives drawn before each curve and up to each point, `(R, curves)` and `(R, points)`.

        Both are counted through all curves of all redraws, so that one sorted array can be searched.
        """
        drawn = counts[:, self._image]
        true = np.cumsum(drawn.ravel()).reshape(drawn.shape)
        return true[:, self._first] - drawn[:, self._first], true

    def _positives(self, counts: np.ndarray) -> np.ndarray:
        """Detections drawn up to each point of a curve that are not ignored, `(R, points)`."""
        drawn = _counted_before(counts[:, self._detection_image])
        up_to = np.minimum(self._position + 1, drawn.shape[1] - 1)
        positives = drawn[:, up_to] - drawn[:, self._first_detection][:, self._curve // self.thresholds]
        if len(self._ignored_image):
            ignored = _counted_before(counts[:, self._ignored_image])
            positives -= ignored[:, self._ignored_up_to] - ignored[:, self._ignored_before][:, self._curve]
        return positives

    def _points_at_recalls(self, objects: np.ndarray, before: np.ndarray, true: np.ndarray) -> np.ndarray:
        """Indices into the flat points where each curve reaches each recall, `(R, curves, recalls)`."""
        needed = np.repeat(_true_positives_needed(objects, self.recalls), self.thresholds, axis=1)
        at = np.searchsorted(true.ravel(), before[..., None] + needed)
        first = np.arange(len(true))[:, None, None] * true.shape[1]
        # Recall 0 is reached at the first point, whether it is drawn or not.
        return np.clip(at, first + self._first[:, None], first + self._last[:, None])


def ap_interval(
    evaluation: COCOeval,
    *,
    metric: str = 'AP',
    redraws: int = REDRAWS,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """A metric of `METRICS` with its interval, from pycocotools' matches (after `evaluate()`)."""
    scored = AveragePrecision.from_coco(evaluation, metric=metric)
    return interval(scored, redraws=redraws, seed=seed, confidence=confidence)


def _true_positives_needed(objects: np.ndarray, recalls: np.ndarray) -> np.ndarray:
    """The smallest numbers n with n / objects >= recall in floating-point arithmetic, `(..., recalls)`."""
    objects = np.maximum(objects, 1)[..., None]
    needed = np.ceil(recalls * objects)
    needed -= (needed - 1) / objects >= recalls
    needed += needed / objects < recalls
    return np.maximum(needed, 0)


def _counted_before(drawn: np.ndarray) -> np.ndarray:
    """Sums along the rows with a leading 0, `(R, D)` to `(R, D + 1)`."""
    sums = np.zeros((len(drawn), drawn.shape[1] + 1))
    np.cumsum(drawn, axis=1, out=sums[:, 1:])
    return sums


def _of_area(evaluation: COCOeval, area: list[float]) -> list[tuple[int, int, dict]]:
    """Category, image and matches in one range of areas, in the order of categories and images."""
    categories = {key: index for index, key in enumerate(evaluation.params.catIds)}
    images = {key: index for index, key in enumerate(evaluation.params.imgIds)}
    parts = (part for part in evaluation.evalImgs if part is not None and [*part['aRng']] == [*area])
    found = [(categories[part['category_id']], images[part['image_id']], part) for part in parts]
    return sorted(found, key=itemgetter(0, 1))


def _collect(
    found: list[tuple[int, int, dict]], shape: tuple[int, int], chosen: np.ndarray, most: int
) -> tuple[np.ndarray, Detections]:
    """Objects that are not ignored, of the shape `(I, C)`, and detections with matches at the chosen thresholds."""
    objects = np.zeros(shape)
    for category, image, part in found:
        objects[image, category] = np.count_nonzero(np.asarray(part['gtIgnore']) == 0)
    numbers = [len(part['dtScores'][:most]) for _, _, part in found]
    empty = np.zeros((chosen.sum(), 0), bool)
    matched = [np.asarray(part['dtMatches'])[chosen, :most] != 0 for *_, part in found]
    ignored = [np.asarray(part['dtIgnore'], bool)[chosen, :most] for *_, part in found]
    return objects, Detections(
        np.repeat(np.array([image for _, image, _ in found], int), numbers),
        np.repeat(np.array([category for category, *_ in found], int), numbers),
        np.array([score for *_, part in found for score in part['dtScores'][:most]], float),
        np.concatenate([empty, *matched], axis=1),
        np.concatenate([empty, *ignored], axis=1),
    )
