"""Parameters, multiply-adds and activations of backbones, detectors and segmentors, by what they execute.

python tools/cost.py conv2former_t convit_s timm:convnext_tiny --size 800 1344
python tools/cost.py --config configs/maskrcnn_hornet_t_coco.py mmdet::retinanet/retinanet_r50_fpn_1x_coco.py
python tools/cost.py --config configs/upernet_deit_s_ade20k.py --backbone slak_t --by-operator

MACs are multiplications with addition, what papers call FLOPs: 1 MAC = 2 FLOPs. Where our algebra is other than the
papers', `textbook` is what theirs would cost.
"""

import argparse
import json
import sys
from contextlib import redirect_stdout
from dataclasses import asdict


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'names', nargs='*', metavar='NAME', help='backbone of ours, with options (deit_s:window_size=14), or timm:NAME'
    )
    parser.add_argument(
        '--config', nargs='+', default=[], metavar='CFG', help='whole models: files, or mmdet::..., mmseg::...'
    )
    parser.add_argument('--backbone', metavar='NAME', help="of ours, in the place of each config's own")
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='pixels; else 224 224 for backbones, 800 1280 for detectors, 512 2048 for segmentors',
    )
    parser.add_argument('--by-operator', action='store_true', help='what each operator executes')
    parser.add_argument('--json', action='store_true', help='numbers in full, by name')
    args = parser.parse_args()
    if not args.names and not args.config:
        parser.error('give backbones by name, or models by --config')
    if args.backbone and not args.config:
        parser.error(f'--backbone {args.backbone} takes a place in a config: give --config, or the name alone')
    return args


def costs(args: argparse.Namespace) -> dict[str, tuple]:
    """Size and cost by name."""
    from hybrid_backbones._tasks import is_segmentor
    from hybrid_backbones.engine.config import read_config
    from hybrid_backbones.profiling.cost import backbone_cost, model_cost
    from hybrid_backbones.swap import swap_backbone

    rows = {}
    for name in args.names:
        size = tuple(args.size or (224, 224))
        rows[name] = size, backbone_cost(name, size)
    for path in args.config:
        cfg = swap_backbone(path, args.backbone) if args.backbone else read_config(path)
        size = tuple(args.size or ((512, 2048) if is_segmentor(cfg) else (800, 1280)))
        rows[f'{path} {args.backbone or ""}'.strip()] = size, model_cost(cfg, size)
    return rows


def print_table(rows: dict[str, tuple], by_operator: bool) -> None:
    both = any(cost.macs != cost.textbook_macs for _, cost in rows.values())
    width = max(len(name) for name in rows) + 2
    print('MACs, not FLOPs (1 MAC = 2 FLOPs), of one image, executed in inference on a CPU')
    textbook = f'{"textbook G":>13}' if both else ''
    print(f'{"":{width}}{"size":>10}{"params M":>10}{"MACs G":>13}{textbook}{"activations M":>15}')
    for name, ((height, columns), cost) in rows.items():
        textbook = f'{cost.textbook_macs / 1e9:13.4f}' if both else ''
        print(
            f'{name:{width}}{f"{height}x{columns}":>10}{cost.parameters / 1e6:10.3f}{cost.macs / 1e9:13.4f}{textbook}'
            f'{cost.activations / 1e6:15.2f}'
        )
        for operator, macs in sorted(cost.by_operator.items(), key=lambda row: -row[1]) if by_operator else ():
            print(f'  {operator:{width + 18}}{macs / 1e9:13.4f}')


def main() -> None:
    args = parse_args()
    try:
        with redirect_stdout(sys.stderr):  # what changes as a backbone is swapped
            rows = costs(args)
    except (ValueError, FileNotFoundError, LookupError) as error:
        sys.exit(f'cost.py: {error}')
    if args.json:
        print(json.dumps({name: dict(size=size, **asdict(cost)) for name, (size, cost) in rows.items()}, indent=2))
    else:
        print_table(rows, args.by_operator)


if __name__ == '__main__':
    main()
