"""Write a config with another backbone: `hybrid-backbones swap CONFIG --backbone cvt_13 -o OUT.py`."""

import argparse

from mmengine.config import DictAction

from ..swap import write_swapped


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Write a config that inherits from another, with a backbone of ours')
    parser.add_argument('config', help='file, or name of a config: hybrid_backbones::NAME.py, mmdet::FOLDER/NAME.py')
    parser.add_argument('--backbone', required=True, metavar='NAME', help='hybrid_backbones.list_backbones() has them')
    parser.add_argument(
        '--backbone-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='its options, such as drop_path_rate=0.2 window_size=14',
    )
    parser.add_argument('--checkpoint', help='its pretrained weights: file, URL or hybrid://NAME, as published')
    parser.add_argument('-o', '--out', required=True, help='config file to write')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    write_swapped(args.config, args.out, args.backbone, args.checkpoint, **args.backbone_options)
