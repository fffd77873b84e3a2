"""Training and testing a config from start to end; `hybrid_backbones.cli` only parses arguments."""

import logging
import os
from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch.distributed import DistNetworkError

from .._tasks import is_segmentor
from ..datasets.checks import Report, check_data
from ..layers.fast_linear import use_fast_linear
from .compiling import compile_parts
from .config import check_work_dir, load_config, use_amp, use_auto_scale_lr, use_resume, use_total_batch
from .cuda import lacks_bf16_attention, prepare_cuda
from .memory import keep_freed_memory
from .model_checks import check_channels
from .precision import choose_precision, precision_of_run
from .published_models import local_model
from .starting_weights import framed, prepare_weights
from .trained_model import locate_model


def train(
    config: str,
    work_dir: str | None = None,
    data_root: str | None = None,
    amp: str | None = None,
    compiler: str | None = None,
    total_batch: int | None = None,
    resume: str | None = None,
    auto_scale_lr: bool = False,
    options: dict | None = None,
    launcher: str = 'none',
    mallopt: bool = True,
    change: Callable[[Config], Config] | None = None,
    allow: Iterable[str] = (),
    from_scratch: bool = False,
    require_weights: bool = False,
    fp32: str = 'tf32',
    cudnn_attention: bool = False,
    fast_linear: str = 'auto',
    until: int | None = None,
) -> Runner:
    """Train a detector or segmentor; see `hybrid-backbones train --help` for the arguments.

    Args:
        change: Applied to the config as it is read, before `options`: another backbone put in, for example.
        allow: Codes of findings of :mod:`hybrid_backbones.datasets.checks` that pass on purpose.
        from_scratch: Start from random weights, whatever the config names.
        require_weights: Do not train from scratch where weights that only a person can fetch are missing.
        fp32, cudnn_attention: On a GPU, see :func:`~.cuda.prepare_cuda`.
        fast_linear: `auto` for :func:`~hybrid_backbones.layers.fast_linear.use_fast_linear` on a CPU, or `off`.
        until: Pause there, see :class:`~.pausing.PauseHook`; `resume` continues.

    Raises:
        CheckpointError: The weights that the backbone or the model starts from are not to be had, or do not match.
        ConnectionError: The processes of a distributed run do not find each other.
        DataError: Data are missing or incomplete, or do not fit the config: a ValueError with all findings.
        FileNotFoundError: Config, or checkpoint to resume or start from are missing.
        FloatingPointError: A loss is not finite.
        OSError: A checkpoint cannot be written.
        PermissionError: The work directory cannot be written to.
        RuntimeError: Nothing can be compiled here.
        ValueError: The config cannot be read or contradicts itself.
    """
    _prepare_memory(mallopt)
    prepare_cuda(fp32, cudnn_attention)
    cfg = load_config(config, work_dir, data_root, options, launcher, change)
    check_work_dir(cfg.work_dir)
    if amp and amp != 'auto':
        use_amp(cfg, amp)
    if amp == 'bf16' and torch.cuda.is_available() and (warning := lacks_bf16_attention()):
        print_log(warning, level=logging.WARNING)
    if total_batch is not None:
        use_total_batch(cfg, total_batch)
    if auto_scale_lr:
        use_auto_scale_lr(cfg)
    if resume is not None:
        print_log(use_resume(cfg, resume))
        if cfg.resume:
            _add_hook(cfg, dict(type='StrictCheckpointHook'))
        if cfg.resume and amp == 'auto':
            amp = precision_of_run(cfg.load_from)
            use_amp(cfg, amp)
    if cfg.get('load_from'):
        cfg.load_from = local_model(cfg.load_from)
        if not cfg.get('resume'):
            _add_hook(cfg, dict(type='LoadMatchingHook'))
    if until is not None:
        _add_hook(cfg, dict(type='PauseHook', at=until))
    prepare_weights(cfg, from_scratch, require_weights)
    report = check_data(cfg, ('train', 'val') if cfg.get('val_cfg') else ('train',), allow)
    runner = _build(cfg, fast_linear)
    _log_findings(runner, report)
    if amp == 'auto':
        choose_precision(runner)
    if compiler:
        runner.logger.info(f'torch.compile ({compiler}) of {" and ".join(compile_parts(runner.model, compiler))}')
    runner.train()
    _summarise(runner, {'checkpoint': runner.message_hub.runtime_info.get('last_ckpt')})
    if text := cfg.get('missing_weights'):
        runner.logger.warning(framed(f'Trained without weights. {text}'))
    return runner


def test(
    config: str,
    checkpoint: str,
    work_dir: str | None = None,
    data_root: str | None = None,
    out: str | None = None,
    show_dir: str | None = None,
    tta: bool = False,
    options: dict | None = None,
    launcher: str = 'none',
    mallopt: bool = True,
    allow: Iterable[str] = (),
    fp32: str = 'tf32',
    cudnn_attention: bool = False,
    fast_linear: str = 'auto',
) -> dict[str, float]:
    """Evaluate a checkpoint; see `hybrid-backbones test --help` for the arguments. Returns the metrics.

    Raises:
        CheckpointError: The checkpoint is not to be had, of another model, or holds NaN or infinity.
        DataError: Data are missing or incomplete, or do not fit the config: a ValueError with all findings.
        FileNotFoundError: Config or checkpoint are missing.
        PermissionError: The work directory cannot be written to.
        ValueError: `out` does not fit the task.
    """
    _prepare_memory(mallopt)
    prepare_cuda(fp32, cudnn_attention)
    checkpoint = locate_model(checkpoint)
    cfg = load_config(config, work_dir, data_root, options, launcher)
    check_work_dir(cfg.work_dir)
    cfg.load_from, cfg.resume = checkpoint, False
    if show_dir:
        _draw_predictions(cfg, Path(show_dir).absolute())
    unused = use_tta(cfg) if tta else ()
    if out:
        _write_predictions(cfg, out)
    _add_hook(cfg, dict(type='StrictCheckpointHook', unused=unused))
    report = check_data(cfg, ('test',), allow)
    runner = _build(cfg, fast_linear)
    _log_findings(runner, report)
    metrics = runner.test()
    _summarise(runner, {'predictions': out, 'drawings': show_dir})
    return metrics


def _log_findings(runner: Runner, report: Report) -> None:
    if report.findings:
        runner.logger.info(f'Data: {report.summary()}\n{report.text()}')


def _add_hook(cfg: Config, hook: dict) -> None:
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]


def _prepare_memory(mallopt: bool) -> None:
    if mallopt and keep_freed_memory():
        print_log('glibc keeps freed memory in the process, for speed (--no-mallopt leaves it alone)')


def _build(cfg: Config, fast_linear: str) -> Runner:
    try:
        _rename_visualizer(cfg)
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    except DistNetworkError as error:
        address = f'{os.environ.get("MASTER_ADDR")}:{os.environ.get("MASTER_PORT")}'
        raise ConnectionError(
            f'this process (rank {os.environ.get("RANK")}) cannot meet the others at {address}: {error}. If the '
            'address is in use there, another run has it: set MASTER_PORT (tools/*.sh: PORT) to a free one'
        ) from error
    check_channels(runner.model)
    if fast_linear == 'auto' and next(runner.model.parameters()).device.type == 'cpu':
        use_fast_linear(runner.model)
        runner.logger.info('Linear layers take the fastest products of this CPU (--fast-linear off leaves them alone)')
    return runner


def _rename_visualizer(cfg: Config) -> None:
    """Give a later run of this process a visualizer of its own: MMEngine takes the first of a name, with its folder."""
    visualizer = cfg.get('visualizer') or {}
    while 'name' in visualizer and Visualizer.check_instance_created(visualizer['name']):
        visualizer['name'] += '_'


def _summarise(runner: Runner, written: dict[str, Any]) -> None:
    """Log where everything was written, as the last lines of a run."""
    log_dir = Path(runner.log_dir)
    places = {
        'config': Path(runner.work_dir) / Path(runner.cfg.filename).name,
        'log': log_dir / f'{runner.timestamp}.log',
        'metrics and losses': log_dir / 'vis_data',
    } | {what: Path(where).absolute() for what, where in written.items() if where}
    lines = [f'  {what:18} {where}' for what, where in places.items() if Path(where).exists()]
    runner.logger.info('Done. Written to\n' + '\n'.join(lines))


def _draw_predictions(cfg: Config, folder: Path) -> None:
    hook = cfg.default_hooks.setdefault(
        'visualization',
        dict(type='SegVisualizationHook' if is_segmentor(cfg) else 'DetVisualizationHook'),
    )
    hook['draw'], hook['interval'] = True, 1
    if is_segmentor(cfg):
        cfg.visualizer['save_dir'] = str(folder)
    else:
        hook['test_out_dir'] = str(folder)


def _write_predictions(cfg: Config, out: str) -> None:
    """Add to the config what writes predictions to `out`, in the form that the task's tools read."""
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    if is_segmentor(cfg):
        if Path(out).suffix:
            raise ValueError(f'--out {out}: give a folder; each label map is written there as a PNG')
        evaluators[0]['output_dir'], evaluators[0]['keep_results'] = out, True
        return
    if out.endswith('.json'):
        evaluators[0]['outfile_prefix'] = out.removesuffix('.json')
    elif out.endswith(('.pkl', '.pickle')):
        cfg.test_evaluator = [*evaluators, dict(type='DumpDetResults', out_file_path=out)]
    else:
        raise ValueError(
            f'--out {out}: give NAME.pkl for all predictions, or NAME.json for COCO results '
            f'(written as NAME.bbox.json and NAME.segm.json)'
        )


def use_tta(cfg: Config) -> tuple[str, ...]:
    """Test with several scales and flips, and merge the predictions.

    mmdet merges boxes but no masks: the mask head is left out, and box AP alone is computed.

    Returns:
        Prefixes of the checkpoint's entries that the model then does without.

    Raises:
        ValueError: The config has no `tta_pipeline`.
    """
    if 'tta_pipeline' not in cfg:
        raise ValueError('--tta needs tta_pipeline in the config; our configs/_base_/*.py show one for each task')
    cfg.setdefault('tta_model', dict(type='SegTTAModel' if is_segmentor(cfg) else 'DetTTAModel'))
    unused = ()
    roi_head = cfg.model.get('roi_head') or {}
    if roi_head.get('mask_head'):
        unused = ('roi_head.mask_head.',)
        roi_head['mask_head'] = roi_head['mask_roi_extractor'] = None
        for evaluator in cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]:
            if 'metric' in evaluator:
                evaluator['metric'] = 'bbox'
        print_log('--tta: mmdet cannot merge masks of several views; boxes alone are predicted and evaluated')
    cfg.test_dataloader.dataset.pipeline = deepcopy(cfg.tta_pipeline)
    cfg.model = dict(cfg.tta_model, module=cfg.model)
    return unused
