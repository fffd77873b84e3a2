"""Time and memory of backbones and whole models, measured side by side; see docs/speed.md.

hybrid-backbones speed conv2former_t timm:convnext_tiny --sizes 800x1344
hybrid-backbones speed deit_s:window_size=14 deit_s --sizes 224 512 800x1344
hybrid-backbones speed cvt_13 transformers:cvt --memory-format contiguous
hybrid-backbones speed botnet_50 plain:botnet_50 --train
hybrid-backbones speed mmdet::retinanet/retinanet_r50_fpn_1x_coco.py{+conv2former_t,}
"""

import argparse
import json
import re
from contextlib import nullcontext
from pathlib import Path


def parse_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r'([1-9]\d*)(?:x([1-9]\d*))?', text)
    if not match:
        raise argparse.ArgumentTypeError(f'expected HEIGHTxWIDTH or SIDE in pixels, as 800x1344, got {text!r}')
    return int(match[1]), int(match[2] or match[1])


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # an abbreviated `--size 800 1344` would be two square sizes
    )
    parser.add_argument(
        'names',
        nargs='+',
        help='backbone, timm:NAME, transformers:TYPE, plain:botnet_50, CONFIG, CONFIG+BACKBONE; ratios are to the last',
    )
    parser.add_argument(
        '--sizes',
        type=parse_size,
        nargs='+',
        default=[(800, 1344)],
        metavar='HxW',
        help='image sizes, default 800x1344',
    )
    parser.add_argument('--batch-size', type=int, default=1)
    parser.add_argument('--dtype', choices=['fp32', 'bf16', 'fp16'], default='fp32', help='bf16 and fp16 by autocast')
    parser.add_argument('--memory-format', choices=['channels_last', 'contiguous'], default='channels_last')
    parser.add_argument('--train', action='store_true', help='time forward and backward instead of inference')
    parser.add_argument(
        '--no-train-memory', action='store_true', help='do not measure the peak memory of a training step'
    )
    parser.add_argument('--fuse', action='store_true', help="fold BatchNorm of this package's backbones for inference")
    parser.add_argument(
        '--compile',
        nargs='?',
        const='inductor',
        metavar='BACKEND',
        help='torch.compile backbones, and the necks of whole models; give it after the names',
    )
    parser.add_argument('--device', default='cpu')
    parser.add_argument(
        '--iterations', type=int, default=50, help='maximum number; fewer if medians are stable earlier'
    )
    parser.add_argument('--seconds', type=float, default=60, help='time limit per size, after five iterations')
    parser.add_argument('--json', metavar='FILE', help='write a line per row as soon as it is measured')
    parser.add_argument('--no-mallopt', action='store_true', help="leave glibc's allocator alone (Linux CPUs)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    import torch

    from ..engine.memory import keep_freed_memory
    from ..profiling.speed import COLUMNS, Settings, compare, growth, table
    from ..profiling.terminal import print_table

    kept = not args.no_mallopt and args.device == 'cpu' and keep_freed_memory()
    settings = Settings(
        batch_size=args.batch_size,
        dtype=args.dtype,
        memory_format=args.memory_format,
        train=args.train,
        train_memory=not args.no_train_memory,
        fuse=args.fuse,
        compiler=args.compile,
        device=args.device,
        iterations=args.iterations,
        seconds=args.seconds,
    )
    mode = 'forward and backward' if args.train else 'inference'
    print(
        f'{mode}, batch {args.batch_size}, {args.dtype}, {args.memory_format}, {args.compile or "not compiled"}, '
        f'{args.device}, {torch.get_num_threads()} threads, freed memory {"kept" if kept else "returned"}'
    )
    rows = []
    with Path(args.json).open('w') if args.json else nullcontext() as file:
        for size in args.sizes:
            measured = compare(args.names, size, settings, progress=lambda line: print(line, flush=True))
            rows += measured
            for row in measured if file else ():
                record = row.record(measured[-1]) | dict(freed_memory_kept=kept)
                print(json.dumps(record), file=file, flush=True)
            print()
            print_table(COLUMNS, table(measured))
            print(f'peak: {measured[0].machine_flops / 1e9:.0f} GFLOP/s by {measured[0].peak_product}')
            print(flush=True)
    if len(args.sizes) > 1:
        print(*growth(rows), sep='\n')
