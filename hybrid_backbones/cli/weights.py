"""Published weights: which there are, how to get them, what a file is of, and how to publish one.

hybrid-backbones weights list 'cvt*'
hybrid-backbones weights list --detectors 'cascade_*'
hybrid-backbones weights show deit_b_distilled_in1k_384
hybrid-backbones weights fetch 'cvt*' convit_s_in1k
hybrid-backbones weights verify deit_t_in1k --imagenet data/imagenet/val
hybrid-backbones weights check downloads/unknown.pth
hybrid-backbones weights convert downloads/tf_moat.tar.gz -o moat_0.safetensors
hybrid-backbones weights publish work_dirs/RUN/epoch_36.pth -o my_backbone --licence MIT
"""

import argparse
import sys

from ..checkpoints import CheckpointError
from ..zoo.describe import check, describe, save_converted, table
from ..zoo.fetch import fetch
from ..zoo.models import models_table
from ..zoo.publish import publish
from ..zoo.verify import verify


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    command = commands.add_parser('list', help='the published files')
    command.add_argument('pattern', nargs='?', default='*', help="shell pattern of names, such as 'cvt*'")
    form = command.add_mutually_exclusive_group()
    form.add_argument('--detectors', action='store_true', help='detectors and segmentors instead of classifiers')
    form.add_argument('--markdown', action='store_true', help='as a table with links, as in docs/weights.md')
    command = commands.add_parser('show', help='all that is known of one, and how to use it')
    command.add_argument('name')
    command = commands.add_parser('check', help='which network a file is of, and how much of it matches')
    command.add_argument('file', help='path, URL or hybrid://NAME')
    command = commands.add_parser('convert', help='write a file as a plain state dict under the names used here')
    command.add_argument('file', help='path, URL or hybrid://NAME')
    command.add_argument('-o', '--out', required=True, help='a .safetensors or .pth file')
    command.add_argument('--force', action='store_true', help='write over a file that is there')
    command = commands.add_parser('fetch', help='download published files, without loading them')
    command.add_argument('patterns', nargs='*', metavar='NAME', help="names, or shell patterns such as 'cvt*'")
    command.add_argument('--all', action='store_true', help='all classifiers that a program can download')
    command = commands.add_parser('verify', help="top-1 of published classifiers on ImageNet's validation images")
    command.add_argument('pattern', nargs='?', default='*', help='those that are on this machine; default: all')
    command.add_argument('--imagenet', required=True, metavar='DIR', help='a folder of images per class, n01440764/...')
    command.add_argument('--sample', type=int, metavar='N', help='N images, drawn evenly; default: all')
    command = commands.add_parser('publish', help="write a file as a folder in the Hugging Face hub's layout")
    command.add_argument('file', help='path, URL or hybrid://NAME; of a detector or segmentor, its backbone')
    command.add_argument('-o', '--out', required=True, metavar='FOLDER', help='a new folder')
    command.add_argument('--licence', help='SPDX name, such as MIT; default: that of the index for hybrid://NAME')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    commands = {
        'list': lambda: models_table(args.pattern) if args.detectors else table(args.pattern, args.markdown),
        'show': lambda: describe(args.name),
        'check': lambda: check(args.file),
        'convert': lambda: save_converted(args.file, args.out, args.force),
        'fetch': lambda: fetch(args.patterns, args.all),
        'verify': lambda: verify(args.pattern, args.imagenet, args.sample),
        'publish': lambda: publish(args.file, args.out, args.licence),
    }
    try:
        print(commands[args.command]())
    except (CheckpointError, OSError, ValueError) as error:
        sys.exit(f'{type(error).__name__}: {error}')
