"""Backbones on this machine's CPU by PyTorch's own products, by the fastest ones, and by others' code, side by side.

python tools/benchmark_cpu.py conv2former_t deit_s cvt_13 --size 800 1344 --onnx
python tools/benchmark_cpu.py conv2former_t deit_s --size 320 320 --train

In one process, in turn: `plain` is this package without packed products, `measured` with those that a measurement
chose, timm's ConvNeXt-T as timm runs it, and with `--onnx` the exported file by onnxruntime (needs the packages onnx,
onnxruntime and onnxscript). Seconds are medians, ratios are medians over paired iterations; the peak memory of
`measured` is given over that of `plain`.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='+', help='backbones of this package')
    parser.add_argument('--size', type=int, nargs=2, default=(800, 1344), metavar=('H', 'W'))
    parser.add_argument('--train', action='store_true', help='forward and backward')
    parser.add_argument('--onnx', action='store_true', help='compare with onnxruntime too')
    parser.add_argument('--iterations', type=int, default=7)
    parser.add_argument('--cpu-time', action='store_true', help='CPU time of the process, with one thread')
    args = parser.parse_args()
    if args.onnx and args.train:
        parser.error('onnxruntime does not train here; leave out --onnx or --train')
    return args


def main() -> None:
    args = parse_args()
    import torch

    from hybrid_backbones.engine.memory import keep_freed_memory
    from hybrid_backbones.profiling.speed.machine import peak_memory

    keep_freed_memory()
    if args.cpu_time:
        torch.set_num_threads(1)
    clock = time.process_time if args.cpu_time else time.perf_counter
    torch.manual_seed(0)
    x = torch.rand(1, 3, *args.size)
    reference = runner('timm:convnext_tiny', x, args.train)
    print(
        f'{args.size[0]}x{args.size[1]}, {torch.get_num_threads()} threads, {"training" if args.train else "inference"}'
    )
    print(f'{"":16}{"plain s":>9}{"measured":>9}{"/ plain":>9}{"/ timm":>9}{"/ ONNX":>9}{"memory":>9}')
    for name in args.names:
        step = runner(name, x, args.train)
        steps = {'plain': with_policy('plain', step), 'measured': with_policy('measured', step), 'timm': reference}
        if args.onnx:
            steps['ONNX'] = exported(name, x)
        seconds = in_turn(steps, args.iterations, clock)
        ratios = [ratio(seconds['measured'], seconds.get(other)) for other in ('plain', 'timm', 'ONNX')]
        memory = peak_memory(steps['measured'], 'cpu') / peak_memory(steps['plain'], 'cpu')
        medians = (statistics.median(seconds[way]) for way in ('plain', 'measured'))
        cells = [*(f'{median:.3f}' for median in medians), *ratios, f'{memory:.2f}']
        print(f'{name:16}' + ''.join(f'{cell:>9}' for cell in cells), flush=True)


def runner(name: str, x, train: bool) -> Callable[[], object]:
    """Forward, or forward and backward."""
    import torch

    from hybrid_backbones.layers.fast_linear import use_fast_linear
    from hybrid_backbones.profiling.subjects import create_network

    network = create_network(name, size=tuple(x.shape[2:])).train(train)
    if train and not name.startswith('timm:'):
        use_fast_linear(network)

    def step() -> object:
        if not train:
            with torch.inference_mode():
                return network(x)
        network.zero_grad()
        return sum(y.square().mean() for y in network(x)).backward()

    return step


def with_policy(policy: str, step: Callable[[], object]) -> Callable[[], object]:
    """`step` with matrix products chosen by `policy`."""

    def run() -> object:
        os.environ['HYBRID_BACKBONES_PRODUCTS'] = policy
        return step()

    return run


def exported(name: str, x) -> Callable[[], object]:
    """The exported file by onnxruntime, checked against the network."""
    import onnxruntime
    import torch

    from hybrid_backbones.profiling.subjects import create_network

    network = create_network(name).eval()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        file = Path(folder) / 'network.onnx'
        torch.onnx.export(network, (x,), str(file), dynamo=True, verbose=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(str(file), options, providers=['CPUExecutionProvider'])
        inputs = {session.get_inputs()[0].name: x.numpy()}
        for result, expected in zip(session.run(None, inputs), network(x), strict=True):
            torch.testing.assert_close(torch.from_numpy(result), expected, rtol=1e-3, atol=1e-3)
    return lambda: session.run(None, inputs)


def in_turn(
    steps: dict[str, Callable[[], object]], iterations: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of every step, which run in turn, after one round that packs weights and chooses products."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(iterations + 1):
        for name, step in steps.items():
            start = clock()
            step()
            seconds[name].append(clock() - start)
    return {name: values[1:] for name, values in seconds.items()}


def ratio(ours: list[float], theirs: list[float] | None) -> str:
    """Median of the paired ratios."""
    return '-' if theirs is None else f'{statistics.median(a / b for a, b in zip(ours, theirs, strict=True)):.2f}'


if __name__ == '__main__':
    main()
