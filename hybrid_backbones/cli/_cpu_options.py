"""Options of training and testing on a CPU."""

from argparse import ArgumentParser


def add_cpu_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        '--fast-linear',
        choices=['auto', 'off'],
        default='auto',
        help="linear layers on a CPU by the fastest products, heads' too, or `off`: heads, and training, by PyTorch's",
    )
    parser.add_argument('--no-mallopt', action='store_true', help="leave glibc's allocator as it is (Linux CPUs)")
