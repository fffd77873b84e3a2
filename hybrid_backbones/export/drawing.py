"""Results of an exported file as pictures, with Pillow alone."""

import colorsys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image as Images

_OPACITY = 0.5


def draw(image: np.ndarray, results: dict[str, np.ndarray], meta: dict[str, Any], score_thr: float) -> 'Images.Image':
    """An image with boxes and masks of what a detector found, or with the classes that a segmentor sees.

    Args:
        image: (H, W, 3) uint8 RGB.
        results: Of :class:`~.runtime.DeployedModel` for this image.
        meta: Of the model.
        score_thr: Detections at or below it are not drawn.
    """
    if meta['task'] == 'segmentation':
        return _draw_classes(image, results['labels'], meta['classes'])
    return _draw_detections(image, results, meta['classes'], score_thr)


def colours(number: int) -> np.ndarray:
    """(number, 3) uint8 colours, neighbours far apart: hues at steps of the golden ratio."""
    hues = [i * 0.618034 % 1 for i in range(number)]
    return np.array([colorsys.hsv_to_rgb(hue, 0.75, 1) for hue in hues]).reshape(-1, 3) * 255 // 1


def _blend(image: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return (image * (1 - _OPACITY) + colour * _OPACITY).astype(np.uint8)


def _draw_detections(
    image: np.ndarray, results: dict[str, np.ndarray], classes: list[str], score_thr: float
) -> 'Images.Image':
    from PIL import Image, ImageDraw

    from .runtime import paste_masks

    shown = [i for i in range(int(results['count'])) if results['scores'][i] > score_thr]
    palette, picture = colours(len(classes)), image.copy()
    boxes, masks = results['boxes'][shown], results.get('masks')
    if masks is not None:
        masks = masks[shown]
        if masks.dtype != bool:
            masks = paste_masks(masks, boxes, *image.shape[:2])
        for i, mask in zip(shown, masks, strict=True):
            picture[mask] = _blend(picture[mask], palette[results['labels'][i]])
    drawn = Image.fromarray(picture)
    pen = ImageDraw.Draw(drawn)
    for i, box in zip(shown, boxes, strict=True):
        label = results['labels'][i]
        colour = tuple(int(value) for value in palette[label])
        pen.rectangle(box.tolist(), outline=colour, width=2)
        pen.text((box[0] + 3, box[1] + 1), f'{classes[label]} {results["scores"][i]:.2f}', fill=colour)
    return drawn


def _draw_classes(image: np.ndarray, labels: np.ndarray, classes: list[str]) -> 'Images.Image':
    """The classes in colour, and below the image the names of those that it has."""
    from PIL import Image, ImageDraw

    palette = colours(len(classes))
    picture = Image.fromarray(_blend(image, palette[labels]))
    present = np.unique(labels)
    line = 14
    drawn = Image.new('RGB', (picture.width, picture.height + line * len(present)), 'white')
    drawn.paste(picture)
    pen = ImageDraw.Draw(drawn)
    for row, label in enumerate(present):
        top = picture.height + row * line
        pen.rectangle((2, top + 2, 12, top + 12), fill=tuple(int(value) for value in palette[label]))
        share = (labels == label).mean()
        pen.text((18, top + 1), f'{classes[label]} {share:.0%}', fill='black')
    return drawn
