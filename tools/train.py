"""Train a detector or segmentor: `python tools/train.py configs/maskrcnn_conv2former_t_coco.py`."""

import argparse
import os

from mmengine.config import DictAction

import hybrid_backbones  # noqa: F401  (first: it mends what MMEngine needs to read a config)
from hybrid_backbones.engine.run import train


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a detector or segmentor')
    parser.add_argument('config', help='config file, of ours, mmdet or mmseg; `mmdet::...` for one of mmdet itself')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints; default: work_dirs/NAME_OF_THE_CONFIG')
    parser.add_argument('--data-root', help="folder of the data, in place of the config's (data/coco, data/ade/...)")
    parser.add_argument('--amp', action='store_true', help='mixed precision: fp16 on a GPU, bf16 on a CPU')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH',
        help="continue from this checkpoint; without PATH from the work directory's latest intact one",
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
    parser.add_argument('--backbone', metavar='NAME', help="a backbone of ours in place of the config's: cvt_13, ...")
    parser.add_argument(
        '--backbone-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='its options, such as drop_path_rate=0.2 window_size=14',
    )
    parser.add_argument('--checkpoint', help='its pretrained weights, file or URL, as its authors publish them')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--no-mallopt', action='store_true', help="leave glibc's allocator as it is (Linux CPUs)")
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main() -> None:
    args = parse_args()
    train(
        args.config,
        work_dir=args.work_dir,
        data_root=args.data_root,
        amp=args.amp,
        resume=args.resume,
        auto_scale_lr=args.auto_scale_lr,
        options=args.cfg_options,
        launcher=args.launcher,
        mallopt=not args.no_mallopt,
        backbone=args.backbone,
        backbone_options=args.backbone_options,
        checkpoint=args.checkpoint,
    )


if __name__ == '__main__':
    main()
