"""Pretrain a backbone as a classifier, on drawn images or on a folder of images; see docs/pretraining.md.

hybrid-backbones pretrain conv2former_n --data shapes-world --minutes 8
hybrid-backbones pretrain deit_t --data IMAGENET --epochs 300 --size 224 --batch-size 256 --workers 8 --amp bf16
"""

import argparse

from mmengine.config import DictAction

from ..checkpoints.errors import CheckpointError
from ..engine.pretraining import Length, pretrain
from ..engine.pretraining_config import WORLD, Settings


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('name', metavar='NAME', help='a backbone of ours: conv2former_n, deit_t, ...')
    parser.add_argument(
        '--data',
        required=True,
        metavar='DATA',
        help=f'`{WORLD}`, which is drawn, or a folder with train/CLASS/*.jpg and val/CLASS/*.jpg, such as ImageNet',
    )
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument('--minutes', type=float, help='train as many iterations as this machine does in this time')
    length.add_argument('--epochs', type=float, help='passes over the images of a folder')
    length.add_argument('--iterations', type=int, help='as a run with --minutes logs them, to repeat it elsewhere')
    parser.add_argument('-o', '--out', metavar='FILE', help='default: NAME.safetensors in the work directory')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints; default: work_dirs/pretrain_NAME')
    parser.add_argument(
        '--backbone-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='such as drop_path_rate=0.1 layer_scale_init=1.0',
    )
    parser.add_argument(
        '--teacher',
        help='distil (DeiT, hard labels) from a classifier of the same classes: timm:NAME or torchvision:NAME with its '
        'published weights, or a file that this command wrote',
    )
    parser.add_argument('--size', type=int, default=128, help='side of the images in pixels; default: 128')
    parser.add_argument('--batch-size', type=int, default=64, help='images of an iteration, even; default: 64')
    parser.add_argument('--lr', type=float, default=1e-3, help='highest learning rate of AdamW; default: 1e-3')
    parser.add_argument('--seed', type=int, default=0, help='of weights, images and augmentation; default: 0')
    parser.add_argument('--workers', type=int, default=1, help='processes that draw or read images; default: 1')
    parser.add_argument(
        '--amp',
        choices=['fp16', 'bf16'],
        help='mixed precision',
    )
    parser.add_argument(
        '--resume', action='store_true', help="continue from the work directory's latest intact checkpoint"
    )
    return parser.parse_args()


def main() -> str | None:
    args = parse_args()
    try:
        pretrain(
            Settings(
                args.name,
                args.data,
                options=args.backbone_options,
                teacher=args.teacher,
                size=args.size,
                batch_size=args.batch_size,
                lr=args.lr,
                seed=args.seed,
                workers=args.workers,
                amp=args.amp,
            ),
            Length(args.minutes, args.epochs, args.iterations),
            out=args.out,
            work_dir=args.work_dir,
            resume=args.resume,
        )
    except (CheckpointError, OSError, ValueError, FloatingPointError) as error:
        return f'{error}'
    return None
