"""What a detector gets wrong, as tables and pictures."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..visualize.figures import new_figure, save_figure
from .pictures import draw_confusion, draw_crops
from .tide import FOREGROUND, Matching, match

# Detections below it are in no picture and not in the confusion matrix.
SCORE = 0.3
# Upper ends of the sizes, the square root of an object's area in pixels.
SIZES = (16, 32, 64, 96, 128, 256, 512)


def analyze_detections(annotations: str | Path, results: str | Path, images: str | Path, out: str | Path) -> list[Path]:
    """Write tables and pictures of a detector's errors.

    Args:
        annotations: COCO annotation file.
        results: Boxes in COCO's results format, as `tools/test.py --out NAME.json` writes them.
        images: Folder of the images.
        out: Folder to write to: `classes.csv` (AP by class), `errors.csv` (TIDE's types and their cost in AP50),
            `confusion.csv` and `.png`, `sizes.csv` and `.png`, `false_positives.png`, `misses.png`.

    Returns:
        The files written.
    """
    truth, out = COCO(str(annotations)), Path(out)
    found = json.loads(Path(results).read_text())
    out.mkdir(parents=True, exist_ok=True)
    names = {category['id']: category['name'] for category in truth.dataset['categories']}
    matching = match(truth, found)
    tables = {
        'classes': _by_class(truth, found, names),
        'errors': pd.DataFrame(matching.costs(), index=['number', 'AP50 gained']).T.rename_axis('error'),
        'confusion': _confusion(matching, truth, names),
        'sizes': _by_size(matching),
    }
    for name, table in tables.items():
        table.round(4).to_csv(out / f'{name}.csv')
    draw_confusion(tables['confusion'], out / 'confusion.png')
    _draw_sizes(tables['sizes'], out / 'sizes.png')
    paths = {image['id']: Path(images) / image['file_name'] for image in truth.dataset['images']}
    false = [d for d in matching.detections if d.error and d.score >= SCORE]
    shown = [(paths[d.image], d.box, f'{names[d.category]} {d.score:.2f}\n{d.error}') for d in false]
    draw_crops(shown, out / 'false_positives.png')
    missed = sorted((matching.objects[key] for key in matching.missed), key=_side, reverse=True)
    shown = [(paths[thing['image_id']], thing['bbox'], names[thing['category_id']]) for thing in missed]
    draw_crops(shown, out / 'misses.png')
    return sorted(path for path in out.iterdir() if path.suffix in ('.csv', '.png'))


def _by_class(truth: COCO, found: list[dict], names: dict[int, str]) -> pd.DataFrame:
    """AP, AP50 and objects of every class."""
    rows = {}
    for key, name in names.items():
        rows[name] = dict(AP=np.nan, AP50=np.nan, objects=len(truth.getAnnIds(catIds=[key])))
    if found:
        evaluation = COCOeval(truth, truth.loadRes(found), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        for k, key in enumerate(evaluation.params.catIds):
            precision = evaluation.eval['precision'][:, :, k, 0, -1]
            if (precision > -1).any():
                rows[names[key]].update(AP=precision.mean(), AP50=precision[0].mean())
    return pd.DataFrame(rows).T.rename_axis('class')


def _confusion(matching: Matching, truth: COCO, names: dict[int, str]) -> pd.DataFrame:
    """Objects (rows) by the class of what detects them (columns), with those undetected and detections of nothing."""
    labels = [*names.values(), 'background']
    table = pd.DataFrame(0, index=pd.Index(labels, name='object'), columns=labels)
    covered = set()
    for detection in (d for d in matching.detections if d.score >= SCORE):
        row = 'background'
        if not detection.error or detection.error == 'class':
            row = names[matching.objects[detection.object_id]['category_id']]
            covered.add(detection.object_id)
        if detection.error != 'duplicate':
            table.loc[row, names[detection.category]] += 1
    for key, thing in matching.objects.items():
        if key not in covered:
            table.loc[names[thing['category_id']], 'background'] += 1
    return table


def _side(annotation: dict) -> float:
    return float(np.sqrt(annotation['bbox'][2] * annotation['bbox'][3]))


def _by_size(matching: Matching) -> pd.DataFrame:
    """Objects by the side of a square of their box's area, and how many of them are found."""
    found = {d.object_id for d in matching.detections if not d.error and d.score >= SCORE}
    sides = pd.cut([_side(thing) for thing in matching.objects.values()], [0, *SIZES, np.inf], right=False)
    table = pd.DataFrame(dict(side=sides, found=[key in found for key in matching.objects]))
    counts = table.groupby('side', observed=False).found.agg(['size', 'sum'])
    counts.columns = ['objects', 'found']
    return counts.rename_axis('side of the box in pixels')


def _draw_sizes(table: pd.DataFrame, path: Path) -> None:
    figure = new_figure(6, 3.5)
    axes = figure.subplots()
    places, labels = range(len(table)), [f'{i.left:g}-{i.right:g}' for i in table.index]
    axes.bar(places, table.objects, color='lightgrey', label='objects')
    axes.bar(places, table.found, color='tab:green', label=f'found (score {SCORE}, IoU {FOREGROUND})')
    axes.set_xticks(places, labels, rotation=30)
    axes.set(xlabel='side of the box in pixels', ylabel='objects')
    axes.legend()
    save_figure(figure, path)
