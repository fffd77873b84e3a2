"""Large depthwise kernels of RepLKNet and SLaK on a CPU: this package's algorithm and torch's convolutions.

python tools/benchmark_large_kernel.py replknet_31b --size 800 1344

`folded` are the convolutions of the fused network, `published` those of the training form followed by BatchNorms. The
three algorithms run in turn; a ratio is the median over paired iterations. The last line is the whole network.
"""

import argparse
import statistics
import time
from functools import partial


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('name', nargs='?', default='replknet_31b', help='a RepLKNet or SLaK of this package')
    parser.add_argument('--size', type=int, nargs=2, default=(800, 1344), metavar=('H', 'W'))
    parser.add_argument(
        '--train', action='store_true', help='forward and backward; the plain convolutions take minutes'
    )
    parser.add_argument('--iterations', type=int, default=7)
    parser.add_argument('--no-network', action='store_true', help='skip the whole network')
    parser.add_argument(
        '--cpu-time', action='store_true', help='CPU time of the process, for one thread on a busy machine'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    import torch
    import torch.nn.functional as F

    from hybrid_backbones import create_backbone
    from hybrid_backbones.engine.memory import keep_freed_memory
    from hybrid_backbones.layers.channels_last import on_map
    from hybrid_backbones.layers.conv_bn import ParallelKernels
    from hybrid_backbones.layers.large_kernel import join_kernels

    keep_freed_memory()
    clock = time.process_time if args.cpu_time else time.perf_counter
    network = create_backbone(args.name).eval().requires_grad_(args.train)
    kernels = [module for module in network.modules() if isinstance(module, ParallelKernels)]

    def convolve(x, weight, bias=None):
        padding = [side // 2 for side in weight.shape[2:]]
        return F.conv2d(x.permute(0, 3, 1, 2), weight, bias, 1, padding, 1, len(weight)).permute(0, 2, 3, 1)

    def folded(module, x):
        weights, bias = module.folded()
        return sum(convolve(x, weight, None if i else bias) for i, weight in enumerate(join_kernels(weights)))

    def published(module, x):
        return sum(on_map(branch.bn, convolve(x, branch.conv.weight)) for branch in module.children())

    def timed(step) -> float:
        start = clock()
        out = step()
        if args.train:
            (out[-1] if isinstance(out, tuple) else out).sum().backward()
        return clock() - start

    def report(label: str, medians: list[float], pairs: list[list[float]]) -> None:
        ratios = [statistics.median(row[i] / row[0] for row in pairs) for i in (1, 2)]
        print(
            f'{label:34}' + ''.join(f'{s:11.4f}' for s in medians) + ''.join(f'{r:13.2f}' for r in ratios), flush=True
        )

    def compare(label: str, steps: list) -> list[float]:
        with torch.set_grad_enabled(args.train):
            seconds = [[timed(step) for step in steps] for _ in range(args.iterations + 1)][1:]
        medians = [statistics.median(times) for times in zip(*seconds, strict=True)]
        report(label, medians, seconds)
        return medians

    print(f'{args.name}, 1x3x{args.size[0]}x{args.size[1]}, {torch.get_num_threads()} threads, seconds')
    print(f'{"":34}{"here":>11}{"folded":>11}{"published":>11}{"x folded":>13}{"x published":>13}')
    algorithms = [ParallelKernels.forward, folded, published]
    totals = [0.0, 0.0, 0.0]
    for stage, (stride, depth) in enumerate(zip(network.out_strides, network.depths, strict=True)):
        module = kernels[sum(network.depths[:stage])]
        largest = next(module.parameters())
        x = torch.randn(
            1, *((side + stride - 1) // stride for side in args.size), len(largest), requires_grad=args.train
        )
        label = f'{depth} x {tuple(largest.shape[2:])} on {tuple(x.shape[1:])}'
        medians = compare(label, [partial(way, module, x) for way in algorithms])
        totals = [total + depth * seconds for total, seconds in zip(totals, medians, strict=True)]
    report('all kernels', totals, [totals])
    if args.no_network:
        return

    def run(way) -> tuple[torch.Tensor, ...]:
        for module in kernels:
            module.forward = partial(way, module)
        return network(image)

    image = torch.randn(1, 3, *args.size)
    compare('network', [partial(run, way) for way in algorithms])


if __name__ == '__main__':
    main()
