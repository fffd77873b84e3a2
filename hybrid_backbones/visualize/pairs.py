"""Predictions beside the truth, many images in one picture, for mmdet and mmseg."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .figures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CROWD_COLOUR = (255, 255, 255)


@dataclass
class Panel:
    """One picture: image (H, W, 3) uint8 RGB, and what is drawn over it; unused parts are None.

    Masks are (N, H, W) bool, boxes (N, 4) as x0, y0, x1, y1 in pixels, labels (N,) class indices, scores (N,), crowds
    (M, H, W) bool, and `classes_map` (H, W) holds class indices, 255 for nothing.
    """

    image: np.ndarray
    boxes: np.ndarray | None = None
    labels: np.ndarray | None = None
    scores: np.ndarray | None = None
    masks: np.ndarray | None = None
    crowds: np.ndarray | None = None
    classes_map: np.ndarray | None = None


def draw_predictions(
    config: str | Path, checkpoint: str | Path, out: str | Path, num_images: int = 8, score_thr: float = 0.5
) -> Path:
    """Run the model on the first images of the config's test split; draw the truth and the predictions, in pairs.

    Args:
        config: A config file whose data exist, such as the one that a run leaves beside its log.
        checkpoint: Weights of that config's model.
        out: PNG file.
        num_images: How many images, at most.
        score_thr: Detections below it are not drawn.
    """
    from mmengine.config import Config

    cfg = Config.fromfile(config)
    pairs, meta = _predict(cfg, str(checkpoint), num_images, score_thr)
    return draw_pairs(pairs, meta['classes'], meta['palette'], out)


def draw_pairs(
    pairs: Sequence[tuple[Panel, Panel]], classes: Sequence[str], palette: Sequence[Sequence[int]], out: str | Path
) -> Path:
    """Pairs of (truth, prediction), two pairs a row, with a legend of the classes; written to the PNG `out`."""
    rows = -(-len(pairs) // 2)
    columns = 2 * min(len(pairs), 2)
    height, width = pairs[0][0].image.shape[:2]
    cell = 2.6
    figure = new_figure(cell * columns, cell * rows * height / width + 0.7)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for i, pair in enumerate(pairs):
        for j, (panel, title) in enumerate(zip(pair, ('ground truth', 'prediction'), strict=True)):
            axes = grid[i // 2, 2 * (i % 2) + j]
            _draw_panel(axes, panel, classes, palette)
            if i < 2:
                axes.set_title(title, fontsize=10)
    _legend(figure, pairs, classes, palette)
    return save_figure(figure, out)


def _legend(figure: 'Figure', pairs: Sequence[tuple[Panel, Panel]], classes: Sequence, palette: Sequence) -> None:
    """Colours of the classes that are seen, below the pictures; at most two dozen."""
    from matplotlib.patches import Patch

    seen: set[int] = set()
    for panel in (panel for pair in pairs for panel in pair):
        for labels in (panel.labels, panel.classes_map):
            seen |= set() if labels is None else set(np.unique(labels).tolist())
    seen.discard(255)
    patches = [Patch(color=np.array(palette[i]) / 255, label=classes[i]) for i in sorted(seen)[:24]]
    figure.legend(handles=patches, loc='outside lower center', ncols=8, frameon=False, fontsize=9)


def _draw_panel(axes: 'Axes', panel: Panel, classes: Sequence[str], palette: Sequence[Sequence[int]]) -> None:
    colours = np.array(palette, float)
    image = panel.image.astype(float)
    if panel.classes_map is not None:
        known = panel.classes_map != 255
        image[known] = 0.35 * image[known] + 0.65 * colours[panel.classes_map[known]]
    for crowd in panel.crowds if panel.crowds is not None else ():
        image[crowd] = 0.4 * image[crowd] + 0.6 * np.array(_CROWD_COLOUR)
    masks = list(zip(panel.masks, panel.labels, strict=True)) if panel.masks is not None else []
    for mask, label in masks:
        image[mask] = 0.6 * image[mask] + 0.4 * colours[label]
    axes.imshow(image.clip(0, 255).astype(np.uint8), interpolation='nearest')
    axes.autoscale(False)
    for mask, label in masks:
        # With a frame of zeros, the line also runs along the image's border.
        y, x = (np.arange(-1, side + 1) for side in mask.shape)
        axes.contour(x, y, np.pad(mask, 1), [0.5], colors=[colours[label] / 255], linewidths=1)
    if panel.boxes is not None:
        _draw_boxes(axes, panel, classes, colours / 255)


def _draw_boxes(axes: 'Axes', panel: Panel, classes: Sequence[str], colours: np.ndarray) -> None:
    from matplotlib.patches import Rectangle

    scores = [None] * len(panel.boxes) if panel.scores is None else panel.scores
    for (x0, y0, x1, y1), label, score in zip(panel.boxes, panel.labels, scores, strict=True):
        # Pixel centres lie at whole numbers in Matplotlib, pixel borders in a box.
        axes.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, ec=colours[label], lw=1.2))
        text = classes[label] if score is None else f'{classes[label]} {score:.2f}'
        style = dict(facecolor=colours[label], edgecolor='none', pad=0.6, alpha=0.85)
        axes.text(x0, max(y0, 0), text, fontsize=5.5, color='white', va='bottom', bbox=style, clip_on=True)


def _predict(cfg: Any, checkpoint: str, num_images: int, score_thr: float) -> tuple[list, dict[str, Any]]:
    """Pairs of panels for the first images of the test split, and the dataset's classes and palette."""
    from mmengine.dataset import pseudo_collate
    from mmengine.registry import DATASETS, MODELS, init_default_scope
    from mmengine.runner import load_checkpoint

    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    model = MODELS.build(cfg.model)
    load_checkpoint(model, checkpoint, map_location='cpu')
    model.eval()
    pairs = []
    for i in range(min(num_images, len(dataset))):
        sample = model.test_step(pseudo_collate([dataset[i]]))[0]
        pairs.append(_panels(sample, score_thr))
    return pairs, dataset.metainfo


def _panels(sample: Any, score_thr: float) -> tuple[Panel, Panel]:
    """(truth, prediction) of one data sample of mmdet or mmseg, over its image file."""
    import mmcv

    image = mmcv.imread(sample.img_path, channel_order='rgb')
    if 'pred_sem_seg' in sample:
        truth, prediction = (part.data[0].cpu().numpy() for part in (sample.gt_sem_seg, sample.pred_sem_seg))
        return Panel(image, classes_map=truth), Panel(image, classes_map=prediction)
    found = sample.pred_instances[sample.pred_instances.scores >= score_thr].cpu().numpy()
    truth = sample.gt_instances.cpu().numpy()
    return (
        Panel(
            image,
            boxes=_array(truth.bboxes),
            labels=truth.labels,
            masks=_masks(truth),
            crowds=_masks(sample.ignored_instances),
        ),
        Panel(image, boxes=found.bboxes, labels=found.labels, scores=found.scores, masks=_masks(found)),
    )


def _array(boxes: Any) -> np.ndarray:
    """Boxes (N, 4) of a tensor, an array, or mmdet's box type."""
    return np.asarray(getattr(boxes, 'tensor', boxes))


def _masks(instances: Any) -> np.ndarray | None:
    if 'masks' not in instances:
        return None
    masks = instances.masks
    if hasattr(masks, 'to_ndarray'):
        masks = masks.to_ndarray()
    return np.asarray(masks, bool)
