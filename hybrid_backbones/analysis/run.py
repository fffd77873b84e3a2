"""From the config of a test to its analysis: options that keep predictions, and the files that hold them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from .._tasks import is_segmentor
from .detection import analyze_detections
from .segmentation import analyze_label_maps

_PREDICTIONS = 'predictions'


def keeping_predictions(cfg: Config, out: str | Path) -> dict[str, Any]:
    """Settings over those of the config with which a test leaves its predictions in `out`.

    Raises:
        ValueError: Its evaluator keeps none that can be analyzed.
    """
    evaluator, folder = cfg.test_evaluator, str(Path(out) / _PREDICTIONS)
    kind = evaluator.get('type', '').rpartition('.')[2] if isinstance(evaluator, dict) else 'several evaluators'
    if is_segmentor(cfg) and kind == 'IoUMetric':
        return {'test_evaluator.output_dir': folder, 'test_evaluator.keep_results': True}
    if not is_segmentor(cfg) and kind == 'CocoMetric':
        return {'test_evaluator.outfile_prefix': folder}
    raise ValueError(f'--analyze works with one CocoMetric or IoUMetric as test_evaluator, this config has {kind}')


def analyze(cfg: Config, out: str | Path) -> list[Path]:
    """Analyze the predictions that a test with :func:`keeping_predictions` left in `out`; returns the files written."""
    out, node = Path(out), cfg.test_dataloader.dataset
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        if not is_segmentor(cfg):
            dataset = DATASETS.build(dict(node, lazy_init=True))
            results = out / f'{_PREDICTIONS}.bbox.json'
            return analyze_detections(dataset.ann_file, results, dataset.data_prefix['img'], out)
        dataset = DATASETS.build(node)
        meta, samples = dataset.metainfo, _samples(dataset, out / _PREDICTIONS)
        return analyze_label_maps(samples, meta['classes'], meta.get('palette') or (), out)


def _samples(dataset: Any, folder: Path) -> Iterator[tuple[Path, np.ndarray, np.ndarray]]:
    for i in range(len(dataset)):
        sample = dataset[i]['data_samples']
        with Image.open(folder / f'{Path(sample.img_path).stem}.png') as image:
            prediction = np.asarray(image).astype(int) - int(sample.reduce_zero_label)
        yield Path(sample.img_path), sample.gt_sem_seg.data[0].numpy(), prediction
