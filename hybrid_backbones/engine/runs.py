"""What training runs leave in their work directories: config, checkpoint, and the log of losses and metrics."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .checkpoint import latest_checkpoint

# Keys of the log other than losses and metrics.
_NO_CURVE = ('base_lr', 'lr', 'data_time', 'time', 'grad_norm', 'memory', 'iter', 'epoch', 'step')
_LOGS = '*/vis_data/scalars.json'

Curves = dict[str, np.ndarray]


@dataclass
class Run:
    """What a training run left in its work directory."""

    config: Path
    scalars: Path
    checkpoint: Path


def find_run(work_dir: str | Path) -> Run:
    """The newest run in a work directory.

    Raises:
        FileNotFoundError: No run, or no checkpoint that can be read.
    """
    logs = sorted(Path(work_dir).glob(_LOGS), key=lambda path: path.stat().st_mtime)
    checkpoint = latest_checkpoint(work_dir) if logs else None
    if checkpoint is None:
        raise FileNotFoundError(f'no finished run in {work_dir}: expected TIME/vis_data/scalars.json and a checkpoint')
    return Run(config=logs[-1].with_name('config.py'), scalars=logs[-1], checkpoint=checkpoint)


def read_scalars(path: str | Path) -> tuple[Curves, Curves]:
    """Curves of MMEngine's `scalars.json`: (losses, metrics), each name -> (K, 2) of step and value."""
    return _curves(_records(Path(path)), lambda record: record['step'])


def read_work_dir(work_dir: str | Path) -> tuple[Curves, Curves]:
    """Curves of all runs of a work directory as those of one: repeated iterations replace the lost ones.

    Returns:
        (losses, metrics), each name -> (K, 2) of iteration and value, also where the run logs metrics by epoch.

    Raises:
        FileNotFoundError: No such folder, or no log in it.
    """
    # MMEngine names the folders by the time of the start.
    logs = sorted(Path(work_dir).glob(_LOGS))
    if not logs:
        raise FileNotFoundError(
            f'no log of a run in {work_dir}: expected TIME/vis_data/scalars.json, as hybrid-backbones train writes it'
        )
    merged: list[dict] = []
    for log in logs:
        records = _records(log)
        if records:
            start = records[0]['iteration']
            merged = [record for record in merged if record['iteration'] < start] + records
    return _curves(merged, lambda record: record['iteration'])


def metrics_of(checkpoint: str | Path) -> dict[str, float]:
    """The metrics that a run logged when it wrote `epoch_N.pth` or `iter_N.pth`; empty for a file of no run."""
    path = Path(checkpoint)
    written = re.fullmatch(r'(?:epoch|iter)_(\d+)\.pth', path.name)
    found: dict[str, float] = {}
    for log in sorted(path.parent.glob(_LOGS)) if written else ():
        _, metrics = read_scalars(log)
        then = {name: metrics[name][metrics[name][:, 0] == int(written[1]), 1] for name in main_metrics(metrics)}
        found |= {name: float(values[-1]) for name, values in then.items() if len(values)}
    return found


def final_metrics(path: str | Path) -> dict[str, float]:
    """The last value of every metric of a `scalars.json`."""
    _, metrics = read_scalars(path)
    return {name: float(curve[-1, 1]) for name, curve in metrics.items()}


def main_metrics(metrics: Curves) -> list[str]:
    """AP and AP50 of COCO or mIoU and accuracies of mmseg, where there are any; else everything."""
    endings = ('_mAP', '_mAP_50', 'mIoU', 'aAcc', 'mAcc')
    return [name for name in metrics if name.endswith(endings)] or list(metrics)


def _records(log: Path) -> list[dict]:
    """Lines of a log, each with the iteration that it belongs to; metrics by epoch have that of the line before."""
    records, last = [], {}
    for line in log.read_text(encoding='utf-8').splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # a killed run leaves its last line cut
        # Only records of training carry a learning rate; only those of runs by epoch carry an epoch.
        training = 'lr' in record
        last = record if training else last
        by_epoch = not training and 'epoch' in last
        records.append({**record, 'iteration': last['step'] if by_epoch else record['step']})
    return records


def _curves(records: list[dict], place: Callable[[dict], int]) -> tuple[Curves, Curves]:
    """(losses, metrics), each name -> (K, 2) of `place(record)` and value."""
    losses: dict[str, list] = {}
    metrics: dict[str, list] = {}
    for record in records:
        curves = losses if 'lr' in record else metrics
        for name, value in record.items():
            wanted = name not in (*_NO_CURVE, 'iteration') and ('loss' in name or curves is metrics)
            if wanted and isinstance(value, (int, float)):
                curves.setdefault(name, []).append((place(record), value))
    return tuple({name: np.array(curve, float) for name, curve in curves.items()} for curves in (losses, metrics))
