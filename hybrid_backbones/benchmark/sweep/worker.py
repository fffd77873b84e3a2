"""One job in a process of its own: `python -m hybrid_backbones.benchmark.sweep.worker FOLDER PARENT`.

It runs `FOLDER/job.json` and writes `FOLDER/outcome.json`: what it adds to a row, or the error that ended it. It exits
when the process PARENT does.
"""

import json
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

from ..._extras import require
from ..._files import write_whole
from ...backbones.factory import create_backbone
from ...checkpoints.download import sha256
from ...engine.checkpoint import latest_checkpoint
from ...engine.config import read_config
from ...engine.pausing import metrics_at_pause
from ...engine.run import test, train
from ...engine.runs import read_work_dir
from ...profiling.cost import Cost, backbone_cost, model_cost
from ...profiling.speed.comparison import profile
from ...profiling.speed.records import Settings, Speed
from ...profiling.speed.whole_model import WholeModel
from ...swap import build_stages, swap_backbone
from ..images import file_of, limits_in_percent, read_images
from ..quoted import published_value
from .deployed import DEPLOYED, PACKAGES, metrics_of_file, speed_of_file
from .evaluators import record_images
from .fingerprint import Recorded, record_beginning
from .jobs import Job
from .running import JOB_FILE, OUTCOME

WORK_DIR = 'work'
IMAGES = 'images.npz'
BEGINNING = 'beginning.json'
# Parts of the names under which MMEngine logs COCO's metrics, such as coco/segm_mAP_50.
_TASKS = {'bbox': 'box', 'segm': 'mask'}
_KINDS = {'mAP': 'AP', 'mAP_50': 'AP50', 'mAP_75': 'AP75', 'mAP_s': 'AP_S', 'mAP_m': 'AP_M', 'mAP_l': 'AP_L'}
_SEGMENTATION = ('mIoU', 'aAcc', 'mAcc')
# A long run logs thousands of points.
_MAX_CURVE_POINTS = 200


def main() -> None:
    folder = Path(sys.argv[1])
    _exit_with(int(sys.argv[2]))
    job = Job.from_json((folder / JOB_FILE).read_text())
    try:
        outcome = dict(run=_run, profile=_profile, fingerprint=_fingerprint)[job.record](job, folder)
    except Exception as error:
        traceback.print_exc()
        outcome = dict(error=f'{type(error).__name__}: {error}')
    write_whole(folder / OUTCOME, json.dumps(outcome))
    sys.exit('error' in outcome)


def _exit_with(parent: int) -> None:
    """Exit when the process `parent` does: the job may be started again, and must not run twice."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run(job: Job, folder: Path, *, stop: bool = False) -> dict[str, Any]:
    """Train and evaluate; the weights, metrics and curves of the row.

    Raises:
        Recorded: `stop`, and the beginning is recorded.
    """
    identity, task = job.identity, job.task
    engine = identity.get('engine')
    if engine:
        require('export', *PACKAGES[engine])  # before the training
    name, options = identity['backbone'], identity['options']
    options = options | (frozen(name, options) if identity['frozen'] else {})
    runner = train(
        task['config'],
        work_dir=str(folder / WORK_DIR),
        data_root=task['data_root'],
        amp=None if task['precision'] == 'fp32' else task['precision'],
        resume='auto',
        options={**task['options'], 'randomness.seed': identity['seed']},
        change=partial(_changed, name=name, folder=folder, stop=stop, checkpoint=task['checkpoint'], **options),
        require_weights=True,
        until=job.until,
    )
    if job.until:
        return dict(metrics=_in_rows(metrics_at_pause(runner)))
    losses, metrics = read_work_dir(folder / WORK_DIR)
    values = {name: curve for key, curve in metrics.items() if (name := metric_name(key))}
    final = {name: percent(name, curve[-1, 1]) for name, curve in values.items()}
    if task['multi_scale']:
        final |= _multi_scale(runner, folder)
    if engine:
        config, checkpoint = _config_and_checkpoint(runner)
        found = metrics_of_file(engine, config, checkpoint, folder / WORK_DIR)
        final = {name: percent(name, value) for key, value in found.items() if (name := metric_name(key))}
    if identity['tier'] != 'full':
        _drop_weights(folder)
    curves = {name: _thinned(losses[name]) for name in ('loss',) if name in losses} | {
        name: [[step, percent(name, value)] for step, value in _thinned(curve)] for name, curve in values.items()
    }
    measured = {name: value for name, value in final.items() if value is not None}
    return dict(
        weights=_weights(runner, task['checkpoint']),
        metrics=measured,
        published=_published(identity, measured),
        curves={name: [p for p in curve if p[1] is not None] for name, curve in curves.items()},
        # An exported file is not what was validated.
        **({} if engine else _intervals(folder)),
        fingerprint=_recorded(job, folder),
    )


def _in_rows(logged: dict[str, float]) -> dict[str, float]:
    """Metrics as rows have them, without those that are undefined."""
    named = {name: percent(name, value) for key, value in logged.items() if (name := metric_name(key))}
    return {name: value for name, value in named.items() if value is not None}


def _changed(cfg: Config, *, name: str, folder: Path, stop: bool, **options: Any) -> Config:
    """A config with another backbone, which records per-image results and the beginning of the run."""
    cfg = record_images(swap_backbone(cfg, name, **options), folder / IMAGES)
    return record_beginning(cfg, folder / BEGINNING, stop=stop)


def _fingerprint(job: Job, folder: Path) -> dict[str, Any]:
    """Only the beginning of a run, for its fingerprint."""
    with suppress(Recorded):
        _run(job, folder, stop=True)
    return dict(fingerprint=_recorded(job, folder))


def _recorded(job: Job, folder: Path) -> dict[str, Any] | None:
    """The fingerprint of a run; None if its beginning was not recorded, by a version without fingerprints."""
    if not (folder / BEGINNING).exists():
        return None
    counted = model_cost(_model_config(job), tuple(job.task['size']))
    return dict(json.loads((folder / BEGINNING).read_text()), parameters=counted.parameters, macs=counted.macs)


def _model_config(job: Job) -> Config:
    """The config of a job's model, without weights."""
    cfg = swap_backbone(read_config(job.task['config']), job.identity['backbone'], **job.identity['options'])
    cfg.merge_from_dict(job.task['options'])
    return cfg


def _intervals(folder: Path) -> dict[str, Any]:
    """Intervals of metrics over the images of the last evaluation, whose results are kept in the results folder."""
    if not (folder / IMAGES).exists():
        return {}
    kept = write_whole(file_of(folder.parents[1], folder.name), (folder / IMAGES).read_bytes())
    found = {name: limits for name, metric in read_images(kept).items() if (limits := limits_in_percent(metric))}
    return dict(intervals=found, images_sha256=sha256(kept))


def frozen(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options that freeze the whole backbone."""
    return dict(frozen_stages=build_stages(name, options).num_stages, norm_eval=True)


def metric_name(logged: str) -> str | None:
    """The name in rows of a metric that mmdet or mmseg logs (coco/bbox_mAP: box_AP); None if rows do not have it."""
    if logged in _SEGMENTATION:
        return logged
    task, _, kind = logged.rpartition('/')[2].partition('_')
    return f'{_TASKS[task]}_{_KINDS[kind]}' if task in _TASKS and kind in _KINDS else None


def percent(name: str, value: float) -> float | None:
    """A logged value in percent; None if it is undefined: COCO logs -1 for sizes without objects."""
    if not math.isfinite(value) or value < 0:
        return None
    return round(float(value) * (100 if '_AP' in name else 1), 4)


def _multi_scale(runner: Runner, folder: Path) -> dict[str, float | None]:
    config, checkpoint = _config_and_checkpoint(runner)
    logged = test(str(config), str(checkpoint), work_dir=str(folder / 'multi_scale'), tta=True)
    return {f'{name}_ms': percent(name, logged[name]) for name in _SEGMENTATION}


def _config_and_checkpoint(runner: Runner) -> tuple[Path, Path]:
    """What a run has trained, as files."""
    # A run that was resumed after its last iteration has not recorded its checkpoint itself.
    return Path(runner.work_dir) / Path(runner.cfg.filename).name, latest_checkpoint(runner.work_dir)


def _weights(runner: Runner, checkpoint: str | None) -> dict[str, Any] | None:
    if checkpoint is None:
        return None
    report = runner.model.backbone.load_report
    return dict(file=Path(checkpoint).name, loaded=report.matched / report.total)


def _published(identity: dict[str, Any], measured: dict[str, float]) -> dict[str, Any] | None:
    found = published_value(*(identity[key] for key in ('backbone', 'framework', 'dataset', 'schedule')))
    if found is None:
        return None
    return dict(
        metrics=found.metrics,
        source=found.source,
        trust=found.trust,
        schedule=found.schedule,
        difference={
            name: round(measured[name] - value, 4) for name, value in found.metrics.items() if name in measured
        },
    )


def _drop_weights(folder: Path) -> None:
    for pattern in ('*.pth', f'{DEPLOYED}.*'):
        for file in (folder / WORK_DIR).glob(pattern):
            file.unlink()


def _thinned(curve: np.ndarray) -> list[list[float]]:
    """At most `_MAX_CURVE_POINTS` points of a curve, evenly spaced, with its first and last."""
    kept: Iterable[int] = np.unique(
        np.linspace(0, len(curve) - 1, min(len(curve), _MAX_CURVE_POINTS)).round().astype(int)
    )
    return [[int(curve[i, 0]), round(float(curve[i, 1]), 6)] for i in kept]


def _profile(job: Job, folder: Path) -> dict[str, Any]:
    """Cost, speed and memory of a backbone, or of a model with that backbone."""
    identity, size = job.identity, tuple(job.identity['size'])
    name, options = identity['backbone'], identity['options']
    alone = _cost(backbone_cost(name, size, **options), size)
    if identity['framework'] is None:
        network: str | nn.Module = create_backbone(name, **options) if options else name
        total = alone
    else:
        cfg = _model_config(job)
        total = _cost(model_cost(cfg, size), size)
        network = WholeModel(cfg, size)
    settings = Settings(batch_size=identity['batch_size'], dtype=identity['precision'], **job.task['effort'])
    if engine := identity.get('engine'):
        require('export', *PACKAGES[engine])
        measured = speed_of_file(engine, cfg, size, settings)
    else:
        measured = profile(network, size, settings)
    found: dict[str, Any] = dict(cost=total, backbone_cost=alone)
    found['memory'] = dict(inference_mib=measured.inference_mib, training_mib=measured.train_mib)
    if measured.seconds:
        found['speed'] = _speed(measured)
    return found | (dict(error=measured.error) if measured.error else {})


def _cost(counted: Cost, size: tuple[int, int]) -> dict[str, Any]:
    numbers = asdict(counted)
    del numbers['by_operator']
    return dict(numbers, size=size)


def _speed(measured: Speed) -> dict[str, Any]:
    return dict(
        size=measured.size,
        batch_size=measured.settings.batch_size,
        median_s=measured.quantile(0.5),
        p10_s=measured.quantile(0.1),
        p90_s=measured.quantile(0.9),
        images_per_s=measured.images_per_second,
        iterations=len(measured.seconds),
        stable=measured.stable,
        peak_fraction=measured.share_of_peak,
        peak_product=measured.peak_product,
    )


if __name__ == '__main__':
    main()
