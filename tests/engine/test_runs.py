"""Logs of runs: what they read, and that resumed runs count once."""

import json
from pathlib import Path

import pytest
import torch

from hybrid_backbones.engine.runs import final_metrics, find_run, read_scalars, read_work_dir

PACE = dict(data_time=0.0, time=1.0)
RECORDS = [
    dict(lr=0.1, base_lr=0.1, grad_norm=3.0, loss=2.0, loss_mask=0.5, acc=50.0, iter=1, step=1, **PACE),
    dict(lr=0.1, base_lr=0.1, grad_norm=3.0, loss=1.0, loss_mask=0.2, acc=60.0, iter=2, step=2, **PACE),
    {'coco/bbox_mAP': 0.25, 'coco/bbox_mAP_50': 0.5, 'coco/bbox_mAP_l': 0.1, 'step': 2, **PACE},
    {'coco/bbox_mAP': 0.35, 'coco/bbox_mAP_50': 0.6, 'coco/bbox_mAP_l': 0.2, 'step': 4, **PACE},
]


def write_log(work_dir: Path, records: list[dict], time: str = '20260101_000000') -> Path:
    path = work_dir / time / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(json.dumps(record) for record in records))
    return path


def train(step: int, loss: float, **more: float) -> dict:
    return dict(lr=0.1, loss=loss, iter=step, step=step, **more)


def test_scalars_are_sorted_into_losses_and_metrics(tmp_path: Path) -> None:
    scalars = write_log(tmp_path, RECORDS)
    losses, metrics = read_scalars(scalars)
    assert {name: curve.tolist() for name, curve in losses.items()} == {
        'loss': [[1, 2.0], [2, 1.0]],
        'loss_mask': [[1, 0.5], [2, 0.2]],
    }
    assert set(metrics) == {'coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/bbox_mAP_l'}
    assert final_metrics(scalars) == {'coco/bbox_mAP': 0.35, 'coco/bbox_mAP_50': 0.6, 'coco/bbox_mAP_l': 0.2}


def test_newest_run_is_found(tmp_path: Path) -> None:
    scalars = write_log(tmp_path, RECORDS)
    with pytest.raises(FileNotFoundError, match='no finished run'):
        find_run(tmp_path)
    torch.save({}, tmp_path / 'iter_2.pth')
    run = find_run(tmp_path)
    assert (run.scalars, run.config) == (scalars, scalars.with_name('config.py'))
    assert run.checkpoint.name == 'iter_2.pth'
    with pytest.raises(FileNotFoundError, match='nowhere'):
        find_run(tmp_path / 'nowhere')


def test_resumed_runs_are_joined(tmp_path: Path) -> None:
    first = [train(10, 5.0), train(20, 4.0), dict(mIoU=1.0, step=20), train(30, 9.0), dict(mIoU=9.0, step=30)]
    write_log(tmp_path, first, '20260101_000000')
    # Killed at 30 after the checkpoint of 20; the kill cut a line.
    second = write_log(tmp_path, [train(30, 3.0), train(40, 2.0), dict(mIoU=2.0, step=40)], '20260102_000000')
    second.write_text(second.read_text() + '\n{"lr": 0.1, "lo')
    losses, metrics = read_work_dir(tmp_path)
    assert losses['loss'].tolist() == [[10, 5], [20, 4], [30, 3], [40, 2]]
    assert metrics['mIoU'].tolist() == [[20, 1], [40, 2]]


def test_a_run_from_the_start_replaces_those_before(tmp_path: Path) -> None:
    write_log(tmp_path, [train(10, 5.0), dict(mIoU=1.0, step=10)], '20260101_000000')
    write_log(tmp_path, [train(10, 3.0)], '20260102_000000')
    losses, metrics = read_work_dir(tmp_path)
    assert losses['loss'].tolist() == [[10, 3]] and not metrics


def test_metrics_by_epoch_are_placed_by_iteration(tmp_path: Path) -> None:
    records = [train(50, 5.0, epoch=1), train(100, 4.0, epoch=1), dict(mIoU=1.0, step=1), train(150, 3.0, epoch=2)]
    write_log(tmp_path, [*records, dict(mIoU=7.0, step=2)], '20260101_000000')
    write_log(tmp_path, [train(150, 2.0, epoch=2), dict(mIoU=2.0, step=2)], '20260102_000000')
    losses, metrics = read_work_dir(tmp_path)
    assert losses['loss'].tolist() == [[50, 5], [100, 4], [150, 2]]
    assert metrics['mIoU'].tolist() == [[100, 1], [150, 2]]


def test_a_folder_without_runs(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'no log of a run in .*TIME/vis_data/scalars\.json'):
        read_work_dir(tmp_path)
