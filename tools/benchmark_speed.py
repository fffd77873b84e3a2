"""Time and memory of backbones, ours and those of timm and transformers, side by side.

python tools/benchmark_speed.py conv2former_t timm:convnext_tiny --size 800 1344
python tools/benchmark_speed.py cvt_13 transformers:cvt --size 800 1344 --memory-format contiguous
python tools/benchmark_speed.py botnet_50 plain:botnet_50 --size 800 1344
"""

import argparse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'names',
        nargs='+',
        help='ours, timm:NAME, transformers:TYPE or plain:botnet_50; all over the last one',
    )
    parser.add_argument('--size', type=int, nargs=2, default=(800, 1344), metavar=('H', 'W'))
    parser.add_argument('--batch-size', type=int, default=1)
    parser.add_argument('--dtype', choices=['fp32', 'bf16', 'fp16'], default='fp32', help='bf16 and fp16 by autocast')
    parser.add_argument('--memory-format', choices=['channels_last', 'contiguous'], default='channels_last')
    parser.add_argument('--train', action='store_true', help='forward and backward instead of inference')
    parser.add_argument('--fuse', action='store_true', help='fold what folds for inference in our backbones')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--iterations', type=int, default=7)
    parser.add_argument('--no-mallopt', action='store_true', help="leave glibc's allocator alone (Linux CPUs)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from hybrid_backbones.engine.memory import keep_freed_memory
    from hybrid_backbones.transfer.speed import compare

    kept = not args.no_mallopt and args.device == 'cpu' and keep_freed_memory()
    speeds = compare(
        args.names,
        tuple(args.size),
        batch_size=args.batch_size,
        dtype=args.dtype,
        memory_format=args.memory_format,
        train=args.train,
        fuse=args.fuse,
        device=args.device,
        iterations=args.iterations,
        progress=lambda line: print(line, flush=True),
    )
    mode = 'forward and backward' if args.train else 'inference'
    print(
        f'\n{mode}, {args.batch_size}x3x{args.size[0]}x{args.size[1]}, {args.dtype}, {args.memory_format}, '
        f'{args.device}, freed memory {"kept" if kept else "returned"}'
    )
    print(f'{"network":32}{"median s":>10}{"p10":>8}{"p90":>8}{"peak MiB":>10}{"x last":>8}{"x memory":>10}')
    last = speeds[-1]
    for speed in speeds:
        known = speed.peak_mib is not None
        print(
            f'{speed.name:32}{speed.quantile(0.5):10.3f}{speed.quantile(0.1):8.3f}{speed.quantile(0.9):8.3f}'
            f'{speed.peak_mib if known else float("nan"):10.0f}{speed.ratio(last):8.2f}'
            f'{speed.peak_mib / last.peak_mib if known else float("nan"):10.2f}'
        )


if __name__ == '__main__':
    main()
