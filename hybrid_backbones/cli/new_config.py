"""From a folder to a config: `hybrid-backbones new-config --data DIR --task detection --backbone cvt_13 -o cats.py`."""

import argparse
from pathlib import Path

from ..backbones.factory import find_backbone
from ..datasets.conversion import LAYOUTS, Converted, converted
from ..swap.own_data import plan_training, published_weights, write_config


def parse_args() -> argparse.Namespace:
    known = '\n'.join(f'  {name:6} {module.DESCRIPTION}' for name, module in LAYOUTS.items())
    parser = argparse.ArgumentParser(
        description='Convert a folder of images and annotations, and write a config that trains on it',
        epilog=f'layouts:\n{known}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--data', required=True, metavar='DIR', help='folder as exported; nothing in it is changed')
    parser.add_argument('--task', required=True, choices=['detection', 'segmentation'])
    parser.add_argument('--backbone', required=True, metavar='NAME', help='hybrid_backbones.list_backbones() has them')
    parser.add_argument('--pretrained', action='store_true', help='start from the weights that the index recommends')
    parser.add_argument('-o', '--out', required=True, metavar='FILE.py', type=Path, help='config to write')
    parser.add_argument('--data-out', type=Path, metavar='DIR', help='converted data; default: data/NAME_OF_THE_CONFIG')
    parser.add_argument('--layout', choices=LAYOUTS, help='of the folder, where it has several')
    parser.add_argument('--classes', nargs='+', metavar='NAME', help='names of the classes in order, or a file of them')
    parser.add_argument('--val-share', type=float, default=0.2, help='of images, if the folder has no validation split')
    parser.add_argument('--seed', type=int, default=0, help='of that split')
    parser.add_argument('--size', type=int, metavar='PIXELS', help='short side of images; default: from the images')
    parser.add_argument('--batch-size', type=int, default=4, metavar='N', help='images an iteration; default: 4')
    parser.add_argument('--iterations', type=int, metavar='N', help='default: by the number of images')
    args = parser.parse_args()
    for name, value in dict(size=args.size, batch_size=args.batch_size, iterations=args.iterations).items():
        if value is not None and value < 1:
            parser.error(f'--{name.replace("_", "-")} {value}: expected a number of 1 or more')
    if not 0 < args.val_share < 1:
        parser.error(f'--val-share {args.val_share}: expected a share between 0 and 1')
    if args.out.suffix != '.py':
        parser.error(f'--out {args.out}: a config is a file called NAME.py')
    if args.out.exists():
        parser.error(f'--out {args.out} exists; remove it, or choose another name')
    try:
        find_backbone(args.backbone)
        args.checkpoint = published_weights(args.backbone) if args.pretrained else None
    except ValueError as error:
        parser.error(str(error))
    return args


def describe(data: Converted) -> str:
    counts = ', '.join(f'{count} {split}' for split, count in data.counts.items())
    lines = [f'{data.layout}: {counts} images; {len(data.classes)} classes: {", ".join(data.classes)}']
    return '\n  '.join(lines + data.notes)


def main() -> None:
    args = parse_args()
    root = args.data_out or Path('data') / args.out.stem
    try:
        with converted(args.data, args.task, root, args.layout, args.classes, args.val_share, args.seed) as data:
            print(describe(data))
            plan = plan_training(args.task, data.sizes, args.pretrained, args.size, args.batch_size, args.iterations)
            write_config(args.out, data, args.task, args.backbone, args.checkpoint, plan)
    except (ValueError, FileExistsError) as error:
        raise SystemExit(f'hybrid-backbones new-config: {error}') from error
    print(f'Written: {root} and {args.out}. Next:')
    print(f'  hybrid-backbones check-data {args.out}\n  hybrid-backbones train {args.out}')
