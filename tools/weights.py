"""Published weights: which there are, what a file is of, and a file under the names used here.

python tools/weights.py list 'cvt*'
python tools/weights.py show deit_b_distilled_in1k_384
python tools/weights.py check downloads/unknown.pth
python tools/weights.py convert downloads/tf_moat.tar.gz -o moat_0.safetensors
"""

import argparse
import sys

import hybrid_backbones  # noqa: F401  (first: it patches what MMEngine needs)
from hybrid_backbones.checkpoints import CheckpointError
from hybrid_backbones.zoo.describe import check, describe, save_converted, table


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    command = commands.add_parser('list', help='the published files')
    command.add_argument('pattern', nargs='?', default='*', help="shell pattern of names, such as 'cvt*'")
    command.add_argument('--markdown', action='store_true', help='as a table with links, as in docs/weights.md')
    command = commands.add_parser('show', help='all that is known of one, and how to use it')
    command.add_argument('name')
    command = commands.add_parser('check', help='which network a file is of, and how much of it matches')
    command.add_argument('file', help='path, URL or hybrid://NAME')
    command = commands.add_parser('convert', help='write a file as a plain state dict under the names used here')
    command.add_argument('file', help='path, URL or hybrid://NAME')
    command.add_argument('-o', '--out', required=True, help='a .safetensors or .pth file')
    command.add_argument('--force', action='store_true', help='write over a file that is there')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    try:
        if args.command == 'list':
            print(table(args.pattern, args.markdown))
        elif args.command == 'show':
            print(describe(args.name))
        elif args.command == 'check':
            print(check(args.file))
        else:
            print(save_converted(args.file, args.out, args.force))
    except (CheckpointError, OSError, ValueError) as error:
        sys.exit(f'{type(error).__name__}: {error}')


if __name__ == '__main__':
    main()
