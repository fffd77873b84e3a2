"""What a dataset holds and what the checks found, as one HTML page that needs nothing else."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from mmengine.registry import DATASETS, DefaultScope

from .checks.findings import Report
from .checks.images import list_images
from .checks.view import DatasetView, DataView

_HERE = Path(__file__).parent
NUM_SAMPLES = 8
_MOST_CLASSES = 40


@dataclass
class DatasetSection:
    """What the page shows of one dataset.

    Attributes:
        title: Its key in the config and its class.
        facts: Names and values.
        plots: PNGs as data URLs, with captions.
        samples: PNGs as data URLs, with the names of their images.
    """

    title: str
    facts: list[tuple[str, Any]] = field(default_factory=list)
    plots: list[tuple[str, str]] = field(default_factory=list)
    samples: list[tuple[str, str]] = field(default_factory=list)


def write_page(data: DataView, report: Report, title: str) -> str:
    """The page; every text in it is escaped by the template."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    sections = [_section(dataset) for dataset in data.datasets]
    return environment.get_template('page.html.j2').render(title=title, report=report, sections=sections)


def _section(dataset: DatasetView) -> DatasetSection:
    section = DatasetSection(f'{dataset.where} ({dataset.name})')
    count, _ = list_images(dataset)
    section.facts = [('images', count), ('classes', len(dataset.classes or ()))]
    if dataset.coco is not None and dataset.coco.num_annotations:
        _describe_objects(dataset, section)
    elif dataset.is_segmentation and not isinstance(dataset.records, Exception):
        _describe_label_maps(dataset, section)
    section.samples = list(_samples(dataset))
    return section


def _describe_objects(dataset: DatasetView, section: DatasetSection) -> None:
    file = dataset.coco
    names = [str(category.get('name')) for category in file.categories]
    counts = np.bincount(file.category_rows[file.category_rows >= 0], minlength=len(names))
    per_image = np.bincount(file.image_rows[file.image_rows >= 0], minlength=max(len(file.images), 1))
    section.facts += [
        ('objects', file.num_annotations),
        ('objects of an image, median', float(np.median(per_image))),
        ('crowds', int((file.crowd > 0).sum())),
    ]
    section.plots.append((_bars(names, counts, 'objects'), 'Objects of each category.'))
    with np.errstate(invalid='ignore'):
        sides = np.sqrt(np.clip(file.boxes[:, 2] * file.boxes[:, 3], 1e-9, None))
    section.plots.append(
        (_histogram(sides[np.isfinite(sides) & (sides > 0.1)], 'side of the box, pixels'), 'Sizes of objects: √(w·h).')
    )
    section.plots.append((_scatter(file.widths, file.heights), 'Sizes of images.'))


def _describe_label_maps(dataset: DatasetView, section: DatasetSection) -> None:
    from .checks.label_maps import label_pairs, read_label_map

    pairs = label_pairs(dataset)
    shares = np.zeros(256)
    for i in dataset.sample(len(pairs), 64):
        image, path = pairs[i]
        try:
            label = read_label_map(path, image)
        except (OSError, ValueError, SyntaxError):
            continue
        if not label.colours:
            np.add.at(shares, np.clip(label.values.astype(int), 0, 255), label.shares)
    first = 1 if getattr(dataset.built, 'reduce_zero_label', False) else 0
    names = list(dataset.classes or ())
    section.facts.append(('label maps', len(pairs)))
    values = shares[first : first + len(names)] / max(shares.sum(), 1e-9)
    section.plots.append((_bars(names, 100 * values, '% of pixels'), 'Share of the pixels of each class, in a sample.'))


def _bars(names: list[str], values: np.ndarray, label: str) -> str:
    order = np.argsort(values)[::-1][:_MOST_CLASSES]
    figure, axis = plt.subplots(figsize=(6, 0.6 + 0.22 * max(len(order), 1)))
    axis.barh([names[i] for i in order][::-1], values[order][::-1], color='#0b5cad')
    axis.set_xlabel(label)
    return _data_url(figure)


def _histogram(values: np.ndarray, label: str) -> str:
    figure, axis = plt.subplots(figsize=(5, 3))
    if len(values):
        axis.hist(values, bins=np.geomspace(values.min(), values.max() + 1, 40), color='#0b5cad')
        axis.set_xscale('log')
        for side in (32, 96):
            axis.axvline(side, color='#d9a514', linestyle='--')
    axis.set_xlabel(label)
    axis.set_ylabel('objects')
    return _data_url(figure)


def _scatter(widths: np.ndarray, heights: np.ndarray) -> str:
    sizes, counts = np.unique(np.stack([widths, heights], 1), axis=0, return_counts=True)
    figure, axis = plt.subplots(figsize=(4, 3))
    axis.scatter(sizes[:, 0], sizes[:, 1], s=8 + 60 * counts / counts.max(), alpha=0.6, color='#0b5cad')
    axis.set_xlabel('width, pixels')
    axis.set_ylabel('height, pixels')
    return _data_url(figure)


def _samples(dataset: DatasetView) -> Iterator[tuple[str, str]]:
    """A few images with boxes, masks or label maps drawn, as the dataset itself reads them."""
    try:
        with DefaultScope.overwrite_default_scope(dataset.scope):
            built = DATASETS.build({**dataset.config, 'pipeline': [], 'lazy_init': False, 'serialize_data': False})
        rows = dataset.sample(len(built), NUM_SAMPLES)[:NUM_SAMPLES]
        infos = [built.get_data_info(int(i)) for i in rows]
    except Exception:  # the findings say why it cannot be read
        return
    for info in infos:
        try:
            yield _draw(info, dataset), Path(info['img_path']).name
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
            continue


def _draw(info: dict, dataset: DatasetView) -> str:
    import mmcv

    image = mmcv.imread(info['img_path'], channel_order='rgb')
    if image is None:
        raise OSError(f'{info["img_path"]} cannot be read')
    figure, axis = plt.subplots(figsize=(4, 4 * image.shape[0] / image.shape[1]))
    figure.subplots_adjust(0, 0, 1, 1)
    axis.imshow(image)
    axis.axis('off')
    if dataset.is_segmentation and info.get('seg_map_path'):
        labels = np.asarray(plt.imread(info['seg_map_path']) * 255).round().astype(int)
        axis.imshow(np.ma.masked_equal(labels, 255), alpha=0.5, cmap='tab20', interpolation='nearest')
    palette = dataset.meta.get('palette')
    for instance in info.get('instances', []):
        label = instance.get('bbox_label', 0)
        colour = (
            np.asarray(palette[label]) / 255 if isinstance(palette, (list, tuple)) and label < len(palette) else 'r'
        )
        _draw_object(axis, instance, colour, str((dataset.classes or {})[label]))
    axis.set_xlim(-0.5, image.shape[1] - 0.5)
    axis.set_ylim(image.shape[0] - 0.5, -0.5)
    return _data_url(figure)


def _draw_object(axis: Any, instance: dict, colour: Any, name: str) -> None:
    x0, y0, x1, y1 = instance['bbox']
    axis.add_patch(plt.Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color=colour, linewidth=1.2))
    axis.text(x0, y0, name, fontsize=7, color='white', backgroundcolor=(0, 0, 0, 0.5), va='bottom', clip_on=True)
    mask = instance.get('mask')
    for polygon in mask if isinstance(mask, list) else []:
        axis.fill(polygon[0::2], polygon[1::2], color=colour, alpha=0.35)


def _data_url(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=90, bbox_inches='tight')
    plt.close(figure)
    return 'data:image/png;base64,' + base64.b64encode(buffer.getvalue()).decode()
