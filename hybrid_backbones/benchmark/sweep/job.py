"""One job in a process of its own: `python -m hybrid_backbones.benchmark.sweep.job FOLDER PARENT` does its `job.json`.

It leaves `FOLDER/outcome.json`: what it adds to a row, or the error that ended it. It ends with the process PARENT.
"""

import json
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.runner import Runner
from torch import nn

from ..._files import write_whole
from ...backbones.factory import create_backbone
from ...engine.checkpoint import latest_checkpoint
from ...engine.config import read_config
from ...engine.run import test, train
from ...engine.runs import read_work_dir
from ...profiling.cost import Cost, backbone_cost, model_cost
from ...profiling.speed.comparison import profile
from ...profiling.speed.records import Settings, Speed
from ...profiling.speed.whole_model import WholeModel
from ...swap import build_stages, swap_backbone
from ..quoted import published_value
from .running import JOB_FILE, OUTCOME
from .spec import Job

WORK_DIR = 'work'
# Of COCO's metrics as MMEngine logs them: coco/segm_mAP_50.
_TASKS = {'bbox': 'box', 'segm': 'mask'}
_KINDS = {'mAP': 'AP', 'mAP_50': 'AP50', 'mAP_75': 'AP75', 'mAP_s': 'AP_S', 'mAP_m': 'AP_M', 'mAP_l': 'AP_L'}
_SEGMENTATION = ('mIoU', 'aAcc', 'mAcc')
# Points of a curve in a row; a long run logs thousands.
_POINTS = 200


def main() -> None:
    folder = Path(sys.argv[1])
    _end_with(int(sys.argv[2]))
    job = Job.from_json((folder / JOB_FILE).read_text())
    try:
        outcome = (_run if job.record == 'run' else _profile)(job, folder)
    except Exception as error:
        traceback.print_exc()
        outcome = dict(error=f'{type(error).__name__}: {error}')
    write_whole(folder / OUTCOME, json.dumps(outcome))
    sys.exit('error' in outcome)


def _end_with(parent: int) -> None:
    """A job whose supervisor was killed, even while this was starting, would train on beside the one in its place."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run(job: Job, folder: Path) -> dict[str, Any]:
    """Train, evaluate, and collect what the run left."""
    identity, task = job.identity, job.task
    name, options = identity['backbone'], identity['options']
    options = options | (frozen(name, options) if identity['frozen'] else {})
    runner = train(
        task['config'],
        work_dir=str(folder / WORK_DIR),
        data_root=task['data_root'],
        amp=None if task['precision'] == 'fp32' else task['precision'],
        resume='auto',
        options={**task['options'], 'randomness.seed': identity['seed']},
        change=partial(swap_backbone, name=name, checkpoint=task['checkpoint'], **options),
    )
    losses, metrics = read_work_dir(folder / WORK_DIR)
    values = {name: curve for key, curve in metrics.items() if (name := metric_name(key))}
    final = {name: percent(name, curve[-1, 1]) for name, curve in values.items()}
    if task['multi_scale']:
        final |= _multi_scale(runner, folder)
    if identity['tier'] != 'full':
        _drop_weights(folder)
    curves = {name: _thin(losses[name]) for name in ('loss',) if name in losses} | {
        name: [[step, percent(name, value)] for step, value in _thin(curve)] for name, curve in values.items()
    }
    measured = {name: value for name, value in final.items() if value is not None}
    return dict(
        weights=_weights(runner, task['checkpoint']),
        metrics=measured,
        published=_published(identity, measured),
        curves={name: [p for p in curve if p[1] is not None] for name, curve in curves.items()},
    )


def frozen(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options that leave the whole backbone as it is."""
    return dict(frozen_stages=build_stages(name, options).num_stages, norm_eval=True)


def metric_name(logged: str) -> str | None:
    """Our name of a metric that mmdet or mmseg logs, None for those that rows do not have: coco/bbox_mAP is box_AP."""
    if logged in _SEGMENTATION:
        return logged
    task, _, kind = logged.rpartition('/')[2].partition('_')
    return f'{_TASKS[task]}_{_KINDS[kind]}' if task in _TASKS and kind in _KINDS else None


def percent(name: str, value: float) -> float | None:
    """A logged value in percent; None where there is none: COCO has -1 for sizes without objects."""
    if not math.isfinite(value) or value < 0:
        return None
    return round(float(value) * (100 if '_AP' in name else 1), 4)


def _multi_scale(runner: Runner, folder: Path) -> dict[str, float | None]:
    config = Path(runner.work_dir) / Path(runner.cfg.filename).name
    # Not the run's own record of it, which a run that was killed after its last iteration no longer has.
    checkpoint = latest_checkpoint(runner.work_dir)
    logged = test(str(config), str(checkpoint), work_dir=str(folder / 'multi_scale'), tta=True)
    return {f'{name}_ms': percent(name, logged[name]) for name in _SEGMENTATION}


def _weights(runner: Runner, checkpoint: str | None) -> dict[str, Any] | None:
    if checkpoint is None:
        return None
    report = runner.model.backbone.load_report
    return dict(file=Path(checkpoint).name, loaded=report.matched / report.total)


def _published(identity: dict[str, Any], measured: dict[str, float]) -> dict[str, Any] | None:
    found = published_value(*(identity[key] for key in ('backbone', 'framework', 'dataset', 'schedule')))
    if found is None:
        return None
    verified = {name: value for name, value in found.metrics.items() if found.is_verified(name)}
    return dict(
        metrics=found.metrics,
        source=found.source,
        trust=found.trust,
        schedule=found.schedule,
        difference={name: round(measured[name] - value, 4) for name, value in verified.items() if name in measured},
    )


def _drop_weights(folder: Path) -> None:
    for file in (folder / WORK_DIR).glob('*.pth'):
        file.unlink()


def _thin(curve: np.ndarray) -> list[list[float]]:
    """At most `_POINTS` of a curve's points, first and last among them."""
    kept: Iterable[int] = np.unique(np.linspace(0, len(curve) - 1, min(len(curve), _POINTS)).round().astype(int))
    return [[int(curve[i, 0]), round(float(curve[i, 1]), 6)] for i in kept]


def _profile(job: Job, folder: Path) -> dict[str, Any]:
    """Cost, speed and memory of a backbone, or of the whole model that it is put into."""
    identity, size = job.identity, tuple(job.identity['size'])
    name, options = identity['backbone'], identity['options']
    alone = _cost(backbone_cost(name, size, **options), size)
    if identity['framework'] is None:
        network: str | nn.Module = create_backbone(name, **options) if options else name
        total = alone
    else:
        cfg = swap_backbone(read_config(job.task['config']), name, **options)
        cfg.merge_from_dict(job.task['options'])
        total = _cost(model_cost(cfg, size), size)
        network = WholeModel(cfg, size)
    settings = Settings(batch_size=identity['batch_size'], dtype=identity['precision'], **job.task['effort'])
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
    )


if __name__ == '__main__':
    main()
