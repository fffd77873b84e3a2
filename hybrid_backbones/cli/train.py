"""Train a detector or segmentor: `hybrid-backbones train hybrid_backbones::maskrcnn_conv2former_t_coco.py`."""

import argparse
import os
from functools import partial
from pathlib import Path

from mmengine.config import DictAction
from torch.distributed.elastic.multiprocessing.errors import record

from ..engine.packaged_configs import name_of
from ..engine.run import train
from ..engine.starting_weights import describe_weights, recommended_weights
from ..swap import swap_backbone
from ._cpu_options import add_cpu_options
from ._gpu_options import add_gpu_options


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a detector or segmentor')
    parser.add_argument('config', help='file, or name of a config: hybrid_backbones::NAME.py, mmdet::FOLDER/NAME.py')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints; default: work_dirs/NAME_OF_THE_CONFIG')
    parser.add_argument('--data-root', help="folder of the data, in place of the config's (data/coco, data/ade/...)")
    parser.add_argument(
        '--amp',
        nargs='?',
        const='auto',
        choices=['auto', 'fp16', 'bf16'],
        help='mixed precision; auto, or no value: what is fastest here, fp32 among them, by a measurement',
    )
    parser.add_argument(
        '--compile',
        nargs='?',
        const='inductor',
        metavar='BACKEND',
        help='torch.compile backbone and neck; without BACKEND by inductor, which needs a compiler',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH',
        help="continue from this checkpoint; without PATH from the work directory's latest intact one",
    )
    parser.add_argument(
        '--total-batch',
        type=int,
        metavar='N',
        help="images of an iteration over all processes, in place of the config's images per process",
    )
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate by the total batch size of this run'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings over those of the config, such as optim_wrapper.optimizer.lr=2e-4 or key="[a,b]"',
    )
    parser.add_argument(
        '--allow',
        nargs='+',
        default=[],
        metavar='CODE',
        help='findings about the data that pass on purpose, by the codes of their messages; the log keeps them',
    )
    parser.add_argument('--backbone', metavar='NAME', help="a backbone of ours in place of the config's: cvt_13, ...")
    parser.add_argument(
        '--backbone-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='its options, such as drop_path_rate=0.2 window_size=14',
    )
    parser.add_argument(
        '--checkpoint',
        help='its pretrained weights: file, URL, hybrid://NAME or hf-hub:OWNER/NAME; default: those that the index '
        'recommends, where it has any; `none` for random ones',
    )
    parser.add_argument('--from-scratch', action='store_true', help='random weights, and norms that learn')
    parser.add_argument(
        '--require-weights',
        action='store_true',
        help='stop where weights that only a person can fetch are missing, instead of training from scratch',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    add_gpu_options(parser)
    add_cpu_options(parser)
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.backbone is None and (args.backbone_options or args.checkpoint):
        parser.error('--checkpoint and --backbone-options are of the backbone that --backbone names; give it too')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def chosen_weights(backbone: str, checkpoint: str | None) -> str | None:
    """Those that `--checkpoint` names, or those that the index recommends."""
    if checkpoint is not None:
        return None if checkpoint == 'none' else checkpoint
    recommended = recommended_weights(backbone)
    print(f'{backbone}: {describe_weights(recommended) if recommended else "no published weights, random ones"}')
    return recommended


@record  # so that the launcher's last words are this process's error
def main() -> None:
    args = parse_args()
    change, work_dir = None, args.work_dir
    if args.backbone:
        checkpoint = None if args.from_scratch else chosen_weights(args.backbone, args.checkpoint)
        change = partial(swap_backbone, name=args.backbone, checkpoint=checkpoint, **(args.backbone_options or {}))
        work_dir = work_dir or str(Path('work_dirs') / f'{name_of(args.config)}_{args.backbone}')
    train(
        args.config,
        work_dir=work_dir,
        data_root=args.data_root,
        amp=args.amp,
        compiler=args.compile,
        total_batch=args.total_batch,
        resume=args.resume,
        auto_scale_lr=args.auto_scale_lr,
        options=args.cfg_options,
        launcher=args.launcher,
        mallopt=not args.no_mallopt,
        allow=args.allow,
        change=change,
        from_scratch=args.from_scratch,
        require_weights=args.require_weights,
        fp32=args.fp32,
        cudnn_attention=args.cudnn_attention,
        fast_linear=args.fast_linear,
    )
