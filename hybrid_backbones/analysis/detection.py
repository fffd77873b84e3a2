"""What a detector gets wrong, as tables and pictures."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..visualize.figures import new_figure, save_figure
from .pictures import Region, draw_confusion, draw_regions
from .tide import FOREGROUND, Detection, Matching, match

# Detections below it are in no picture and not in the confusion matrix.
SCORE = 0.3
# Upper ends of the sizes, the square root of an object's area in pixels.
SIZES = (16, 32, 64, 96, 128, 256, 512)
# Kinds of detections that cover an object, rightly (no error) or not.
COVERING = ('', 'class', 'duplicate')


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
        'errors': _errors(matching),
        'confusion': _confusion(matching, truth, names),
        'sizes': _by_size(matching),
    }
    for name, table in tables.items():
        table.round(4).to_csv(out / f'{name}.csv')
    draw_confusion(tables['confusion'], out / 'confusion.png')
    _draw_sizes(tables['sizes'], out / 'sizes.png')
    paths = {image['id']: Path(images) / image['file_name'] for image in truth.dataset['images']}
    false = [d for d in matching.detections if d.error and d.score >= SCORE]
    draw_regions([_false_positive(d, matching, paths, names) for d in false], out / 'false_positives.png')
    missed = sorted((matching.objects[key] for key in matching.missed), key=_side, reverse=True)
    misses = [Region(paths[m['image_id']], names[m['category_id']], truth=m['bbox']) for m in missed]
    draw_regions(misses, out / 'misses.png')
    return sorted(path for path in out.iterdir() if path.suffix in ('.csv', '.png'))


def _false_positive(detection: Detection, matching: Matching, paths: dict[int, Path], names: dict[int, str]) -> Region:
    """The region of a false positive, with the object that it would match but for its error."""
    thing = matching.objects.get(detection.object_id)
    meant = f': {names[thing["category_id"]]}' if thing and detection.error == 'class' else ''
    title = f'{names[detection.category]} {detection.score:.2f}\n{detection.error}{meant}'
    return Region(paths[detection.image], title, detection.box, thing and thing['bbox'])


def _errors(matching: Matching) -> pd.DataFrame:
    """Number of errors of each type, and the AP50 that is gained without them."""
    table = pd.DataFrame(matching.costs(), index=['number', 'AP50 gained']).T
    return table.astype({'number': int}).rename_axis('error')


def _by_class(truth: COCO, found: list[dict], names: dict[int, str]) -> pd.DataFrame:
    """AP, AP50 and objects of every class."""
    rows = {
        name: dict(AP=np.nan, AP50=np.nan, objects=len(truth.getAnnIds(catIds=[key]))) for key, name in names.items()
    }
    if found:
        evaluation = COCOeval(truth, truth.loadRes(found), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        for k, key in enumerate(evaluation.params.catIds):
            precision = evaluation.eval['precision'][:, :, k, 0, -1]
            if (precision > -1).any():
                rows[names[key]].update(AP=precision.mean(), AP50=precision[0].mean())
    return pd.DataFrame(rows).T.astype({'objects': int}).rename_axis('class')


def _confusion(matching: Matching, truth: COCO, names: dict[int, str]) -> pd.DataFrame:
    """Objects (rows) by the class of the most confident detection that covers them (columns), each object once.

    Column `background` has those that none covers, row `background` the detections that cover no object.
    """
    labels = [*names.values(), 'background']
    table = pd.DataFrame(0, index=pd.Index(labels, name='object'), columns=labels)
    covered = set()
    for detection in (d for d in matching.detections if d.score >= SCORE):
        if detection.error not in COVERING:
            table.loc['background', names[detection.category]] += 1
        elif detection.object_id not in covered:
            covered.add(detection.object_id)
            table.loc[names[matching.objects[detection.object_id]['category_id']], names[detection.category]] += 1
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
    counts.index = [f'{i.left:g}-{i.right:g}' if np.isfinite(i.right) else f'{i.left:g} and more' for i in counts.index]
    return counts.rename_axis('side of the box in pixels')


def _draw_sizes(table: pd.DataFrame, path: Path) -> None:
    figure = new_figure(6, 3.5)
    axes = figure.subplots()
    places = range(len(table))
    axes.bar(places, table.objects, color='lightgrey', label='objects')
    axes.bar(places, table.found, color='tab:green', label=f'found (score ≥ {SCORE}, IoU ≥ {FOREGROUND})')
    axes.set_xticks(places, table.index, rotation=30)
    axes.set(xlabel='side of the box in pixels', ylabel='objects')
    axes.legend()
    save_figure(figure, path)
