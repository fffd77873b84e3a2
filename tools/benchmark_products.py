"""Time of matrix products with packed weights over that of PyTorch's own, on this machine's CPU; see docs/speed.md.

python tools/benchmark_products.py 4200x384x1536 4200x1536x384 16800x144x576
"""

import argparse

import torch

from hybrid_backbones.layers.packed import is_available
from hybrid_backbones.layers.product_choice import measure

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


def parse_shape(text: str) -> tuple[int, int, int]:
    try:
        rows, inputs, outputs = map(int, text.split('x'))
    except ValueError:
        raise argparse.ArgumentTypeError(f'expected ROWSxINPUTSxOUTPUTS, as 4200x384x1536, got {text!r}') from None
    return rows, inputs, outputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shapes = [(4200, 384, 1536), (4200, 1536, 384), (16800, 144, 576)]
    parser.add_argument('shapes', type=parse_shape, nargs='*', default=shapes, metavar='ROWSxINPUTSxOUTPUTS')
    parser.add_argument('--dtype', choices=DTYPES, default='fp32')
    args = parser.parse_args()
    if not is_available(DTYPES[args.dtype]):
        parser.error(f'this build of PyTorch has no packed products of {args.dtype} on this processor')
    print(f'{args.dtype}, {torch.get_num_threads()} threads; below 1, packed weights are faster')
    for shape in args.shapes:
        ratios = (f'{kind} {measure(shape, DTYPES[args.dtype], kind):.2f}' for kind in ('none', 'gelu', 'add'))
        print('x'.join(map(str, shape)), *ratios, flush=True)


if __name__ == '__main__':
    main()
