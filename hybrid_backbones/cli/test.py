"""Evaluate a checkpoint: `hybrid-backbones test hybrid_backbones::maskrcnn_conv2former_t_coco.py CHECKPOINT`."""

import argparse
import os

from mmengine.config import DictAction

from ..engine.run import test
from ._cpu_options import add_cpu_options
from ._gpu_options import add_gpu_options


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a detector or segmentor')
    parser.add_argument('config', help='file, or name of a config: hybrid_backbones::NAME.py, mmdet::FOLDER/NAME.py')
    parser.add_argument(
        'checkpoint', help='checkpoint file, URL, or hybrid://NAME of a published detector or segmentor'
    )
    parser.add_argument('--work-dir', help='folder for the log and metrics; default: work_dirs/NAME_OF_THE_CONFIG')
    parser.add_argument('--data-root', help="folder of the data, in place of the config's (data/coco, data/ade/...)")
    parser.add_argument(
        '--out',
        help='predictions: for detection NAME.pkl, or NAME.json for COCO results; for segmentation a folder of PNGs',
    )
    parser.add_argument('--show-dir', help='folder for images with the predictions drawn beside the truth')
    parser.add_argument(
        '--analyze',
        metavar='DIR',
        help='folder for AP or IoU by class and a confusion matrix; of detectors also types of errors, sizes, and '
        'pictures of false positives and misses',
    )
    parser.add_argument('--tta', action='store_true', help='several scales and flips (detection: boxes only)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings over those of the config, such as test_dataloader.batch_size=4 or key="[a,b]"',
    )
    parser.add_argument(
        '--allow',
        nargs='+',
        default=[],
        metavar='CODE',
        help='findings about the data that pass on purpose, by the codes of their messages; the log keeps them',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    add_gpu_options(parser)
    add_cpu_options(parser)
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main() -> None:
    args = parse_args()
    options = args.cfg_options or {}
    if args.analyze:
        from ..analysis.run import analyze, keeping_predictions
        from ..engine.config import load_config

        cfg = load_config(args.config, data_root=args.data_root, options=options)
        options |= keeping_predictions(cfg, args.analyze)
    test(
        args.config,
        args.checkpoint,
        work_dir=args.work_dir,
        data_root=args.data_root,
        out=args.out,
        show_dir=args.show_dir,
        tta=args.tta,
        options=options,
        launcher=args.launcher,
        mallopt=not args.no_mallopt,
        allow=args.allow,
        fp32=args.fp32,
        cudnn_attention=args.cudnn_attention,
        fast_linear=args.fast_linear,
    )
    if args.analyze and args.local_rank == 0:
        print('\n'.join(['Analysis:', *(f'  {path}' for path in analyze(cfg, args.analyze))]))
