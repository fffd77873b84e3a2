"""Look at runs and networks, in PNG: predictions, feature pyramids, receptive fields, attention, learning curves."""

import argparse

from mmengine.config import DictAction

from .. import visualize

NETWORK = 'name of a backbone, such as conv2former_t, or a config file, whose backbone is taken'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)
    _add_predictions(commands.add_parser('predictions', help='of a detector or segmentor, beside the truth'))
    _add_features(commands.add_parser('features', help='levels of a feature pyramid as images'))
    _add_receptive_field(commands.add_parser('receptive-field', help='effective receptive field of every stage'))
    _add_attention(commands.add_parser('attention', help='attention of one pixel or the class token'))
    _add_curves(commands.add_parser('curves', help='losses and metrics of several runs'))
    return parser.parse_args()


def _add_predictions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', help='file, or name of a config: hybrid_backbones::NAME.py, mmdet::FOLDER/NAME.py')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('-o', '--out', required=True, metavar='DIR', help='folder of the PNGs')
    parser.add_argument('--images', help="folder of images, or one; default: the config's test split, beside the truth")
    parser.add_argument('--num-images', type=int, help='at most; default: all of a folder, 16 of a dataset')
    parser.add_argument('--score-thr', type=float, default=0.3, help='detections at or below it are not drawn')
    parser.add_argument('--data-root', help="folder of the data, in place of the config's")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help="over the config's")


def _add_features(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('network', help=NETWORK)
    parser.add_argument('image', help='image file')
    parser.add_argument('-o', '--out', required=True, help='PNG file')
    parser.add_argument('--checkpoint', help='weights: a published file, or of a detector or segmentor')
    parser.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'), help='resize the image')
    _add_options(parser)


def _add_receptive_field(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('networks', nargs='+', metavar='NAME[=CHECKPOINT]', help=NETWORK)
    parser.add_argument('-o', '--out', required=True, help='PNG file')
    parser.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'), default=(512, 512), help='of the inputs')
    parser.add_argument('--samples', type=int, default=8, help='random inputs to average over')
    _add_options(parser)


def _add_attention(parser: argparse.ArgumentParser) -> None:
    _add_features(parser)
    parser.add_argument('--block', type=int, default=-1, help='attention layer, from 0; -1 is the last')
    parser.add_argument(
        '--point',
        type=int,
        nargs=2,
        metavar=('Y', 'X'),
        help='pixel that asks; default: the class token where there is one, else the centre',
    )


def _add_curves(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR', help='work directories of hybrid-backbones train')
    parser.add_argument('-o', '--out', required=True, help='PNG file')
    parser.add_argument('--all', action='store_true', help='every part of the loss and every metric')


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--backbone-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help="arguments of the backbone's constructor, such as window_size=14",
    )


def main() -> None:
    args = parse_args()
    if args.command == 'predictions':
        written = visualize.save_predictions(
            args.config,
            args.checkpoint,
            args.out,
            images=args.images,
            num_images=args.num_images,
            score_thr=args.score_thr,
            data_root=args.data_root,
            options=args.cfg_options,
        )
        print(f'{len(written)} pictures in {args.out}')
        return
    if args.command == 'curves':
        out = visualize.compare_runs(args.work_dirs, args.out, everything=args.all)
    elif args.command == 'receptive-field':
        out = visualize.draw_receptive_fields(args.networks, args.out, args.size, args.samples, args.backbone_options)
    else:
        options = dict(checkpoint=args.checkpoint, size=args.size, options=args.backbone_options)
        if args.command == 'attention':
            out = visualize.draw_attention(
                args.network, args.image, args.out, block=args.block, point=args.point, **options
            )
        else:
            out = visualize.draw_features(args.network, args.image, args.out, **options)
    print(out)
