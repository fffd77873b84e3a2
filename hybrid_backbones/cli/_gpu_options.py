"""Options of training and testing on a GPU."""

from argparse import ArgumentParser


def add_gpu_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        '--fp32',
        choices=['tf32', 'strict'],
        default='tf32',
        help="matrix products of fp32 on a GPU: by TF32, as convolutions, or `strict`, PyTorch's settings as they are",
    )
    parser.add_argument(
        '--cudnn-attention', action='store_true', help="leave cuDNN's attention on, which builds a plan for every size"
    )
