"""Parameters, multiply-adds and activations of backbones, detectors and segmentors; see docs/cost.md.

hybrid-backbones cost conv2former_t convit_s timm:convnext_tiny --size 800 1344
hybrid-backbones cost --config hybrid_backbones::maskrcnn_hornet_t_coco.py mmdet::retinanet/retinanet_r50_fpn_1x_coco.py
hybrid-backbones cost --config hybrid_backbones::upernet_deit_s_ade20k.py --backbone slak_t --by-operator

MACs are multiply-adds, which papers call FLOPs: 1 MAC = 2 FLOPs. `textbook` is the cost by the papers' formulas, for
layers that compute the same function differently here.
"""

import argparse
import json
import sys
from contextlib import redirect_stdout
from dataclasses import asdict


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'names', nargs='*', metavar='NAME', help='backbone, with options (deit_s:window_size=14), or timm:NAME'
    )
    parser.add_argument(
        '--config', nargs='+', default=[], metavar='CFG', help='whole models: files, or mmdet::..., mmseg::...'
    )
    parser.add_argument('--backbone', metavar='NAME', help="backbone that replaces each config's own")
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='pixels; default: 224 224 for backbones, 800 1280 for detectors, 512 2048 for segmentors',
    )
    parser.add_argument('--by-operator', action='store_true', help='show the MACs of each operator')
    parser.add_argument('--json', action='store_true', help='print unrounded numbers by name')
    args = parser.parse_args()
    if not args.names and not args.config:
        parser.error('give backbones by name, or models by --config')
    if args.backbone and not args.config:
        parser.error(
            f'--backbone {args.backbone} replaces a backbone in a config: give --config, or the name without --backbone'
        )
    return args


def costs(args: argparse.Namespace) -> dict[str, tuple]:
    """Size and cost by name."""
    from .._tasks import is_segmentor
    from ..engine.config import read_config
    from ..profiling.cost import backbone_cost, model_cost
    from ..swap import swap_backbone

    rows = {}
    for name in args.names:
        size = tuple(args.size or (224, 224))
        rows[name] = size, backbone_cost(name, size)
    for path in args.config:
        cfg = swap_backbone(path, args.backbone) if args.backbone else read_config(path)
        size = tuple(args.size or ((512, 2048) if is_segmentor(cfg) else (800, 1280)))
        rows[f'{path} {args.backbone or ""}'.strip()] = size, model_cost(cfg, size)
    return rows


def print_costs(rows: dict[str, tuple], by_operator: bool) -> None:
    from ..profiling.terminal import print_table

    print('MACs, not FLOPs (1 MAC = 2 FLOPs), of one image, executed in inference on a CPU')
    differ = any(cost.macs != cost.textbook_macs for _, cost in rows.values())
    columns = ['network', 'size', 'params M', 'MACs G', *(['textbook G'] if differ else []), 'activations M']
    lines = []
    for name, ((height, width), cost) in rows.items():
        textbook = [f'{cost.textbook_macs / 1e9:.4f}'] if differ else []
        numbers = [f'{cost.parameters / 1e6:.3f}', f'{cost.macs / 1e9:.4f}', *textbook, f'{cost.activations / 1e6:.2f}']
        lines.append([name, f'{height}x{width}', *numbers])
        for operator, macs in sorted(cost.by_operator.items(), key=lambda item: -item[1]) if by_operator else ():
            lines.append([f'  {operator}', '', '', f'{macs / 1e9:.4f}', *[''] * (len(columns) - 4)])
    print_table(columns, lines)


def main() -> None:
    args = parse_args()
    try:
        with redirect_stdout(sys.stderr):  # the log of the swap
            rows = costs(args)
    except (ValueError, FileNotFoundError, LookupError) as error:
        sys.exit(f'hybrid-backbones cost: {error}')
    if args.json:
        print(json.dumps({name: dict(size=size, **asdict(cost)) for name, (size, cost) in rows.items()}, indent=2))
    else:
        print_costs(rows, args.by_operator)
