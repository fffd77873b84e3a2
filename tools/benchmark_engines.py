"""Whole models by PyTorch, torch.compile, onnxruntime and OpenVINO, side by side on a CPU; see docs/exporting.md.

python tools/benchmark_engines.py configs/maskrcnn_conv2former_n_shapes.py --size 800 1344 --threads 2 -o engines
python tools/benchmark_engines.py CONFIG+BACKBONE --checkpoints FILE --engines onnxruntime openvino --folder files

Writes OUT.md and OUT.json. In one process and in turn, from an image in memory to results; ratios are to PyTorch's fp32
with a fused backbone.
"""

import argparse
import json
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hybrid_backbones.export.evaluation import TestSplit


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', help='CONFIG, or CONFIG+BACKBONE')
    parser.add_argument('--checkpoints', nargs='+', help='of the configs, in their order; default: random weights')
    parser.add_argument('--size', type=int, nargs=2, default=(800, 1344), metavar=('H', 'W'), help='of the image')
    parser.add_argument('--threads', type=int, default=1, help='of every engine')
    parser.add_argument(
        '--engines',
        nargs='+',
        metavar='ENGINE',
        help='of eager, eager-bf16, compiled, onnxruntime, openvino, openvino-bf16; default: all',
    )
    parser.add_argument(
        '--image', type=Path, help='file to cut the image from; default: a scene, noise without weights'
    )
    parser.add_argument(
        '--int8', type=Path, metavar='IMAGES', help='also in int8: folder of images for calibration, of the real kind'
    )
    parser.add_argument(
        '--test', action='store_true', help="also metrics of the configs' test splits by every engine; needs weights"
    )
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--folder', type=Path, help='where exported files are kept and found; default: a temporary one')
    parser.add_argument('-o', '--out', type=Path, default=Path('engines'), help='OUT.md and OUT.json are written')
    args = parser.parse_args()
    if args.checkpoints and len(args.checkpoints) != len(args.configs):
        parser.error(f'{len(args.configs)} configs and {len(args.checkpoints)} checkpoints: give one for each')
    if args.test and not args.checkpoints:
        parser.error('--test computes metrics of trained models: give --checkpoints')
    return args


def test_split(name: str) -> 'TestSplit':
    """The test split of `CONFIG` or `CONFIG+BACKBONE`."""
    from hybrid_backbones.engine.config import load_config
    from hybrid_backbones.export.evaluation import TestSplit
    from hybrid_backbones.profiling.speed.whole_model import find_config

    return TestSplit(load_config(name.partition('+')[0], change=lambda _: find_config(name)))


def main() -> None:
    args = parse_args()
    import torch

    from hybrid_backbones._files import write_whole
    from hybrid_backbones.engine.memory import keep_freed_memory
    from hybrid_backbones.export.engines import about, compare_engines, markdown, records
    from hybrid_backbones.export.timed_model import TimedModel

    keep_freed_memory()
    torch.set_num_threads(args.threads)
    rows = []
    with nullcontext(args.folder) if args.folder else tempfile.TemporaryDirectory() as folder:
        for config, checkpoint in zip(args.configs, args.checkpoints or [None] * len(args.configs), strict=True):
            try:
                timed = TimedModel(config, checkpoint, tuple(args.size), args.image)
                rows += compare_engines(
                    timed,
                    Path(folder),
                    threads=args.threads,
                    engines=args.engines,
                    calibration=args.int8,
                    split=test_split(config) if args.test else None,
                    rounds=args.rounds,
                    progress=lambda line: print(line, flush=True),
                )
            except (OSError, ValueError) as error:
                sys.exit(f'benchmark_engines.py: {config}: {error}')
            # After every model: the measurement may be stopped.
            write_whole(args.out.with_suffix('.md'), markdown(rows))
            content = dict(about=about(), rows=records(rows))
            write_whole(args.out.with_suffix('.json'), json.dumps(content, indent=1))
    print(markdown(rows))


if __name__ == '__main__':
    main()
