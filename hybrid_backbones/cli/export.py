"""Write a trained detector or segmentor as a file that runs without OpenMMLab; see docs/exporting.md.

hybrid-backbones export CONFIG CHECKPOINT -o model.onnx --verify IMAGES
python -m hybrid_backbones.export.runtime model.onnx image.jpg -o out.png

The file is run beside PyTorch at six sizes and is left only if it says the same.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmengine.config import DictAction

if TYPE_CHECKING:
    from mmengine.config import Config

# By suffix of the file; AOTInductor's has that of torch's.
SUFFIXES = {'.onnx': 'onnx', '.xml': 'openvino', '.pt2': 'torch'}
FORMATS = ('onnx', 'openvino', 'torch', 'aotinductor')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='file, or name of a config: hybrid_backbones::NAME.py, mmdet::FOLDER/NAME.py')
    parser.add_argument('checkpoint', help='its weights: checkpoint file, URL, or hybrid://NAME')
    parser.add_argument('-o', '--out', type=Path, required=True, help='file to write: .onnx, .xml (OpenVINO) or .pt2')
    parser.add_argument('--format', choices=FORMATS, help="default: by the file's suffix, torch for .pt2")
    parser.add_argument('--backbone', metavar='NAME', help="backbone that the checkpoint has in place of the config's")
    parser.add_argument('--backbone-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE')
    parser.add_argument(
        '--verify',
        metavar='IMAGES',
        help='image or folder of images to compare file and PyTorch with; default: drawn scenes. `test`: images of the '
        "config's test split, whose metrics are computed by both, too",
    )
    parser.add_argument('--data-root', help="folder of the data, in place of the config's, with --verify test")
    parser.add_argument(
        '--image-type', choices=['uint8', 'float32'], default='uint8', help='of the images, from 0 to 255'
    )
    parser.add_argument(
        '--mask-size',
        choices=['image', 'roi'],
        default='image',
        help='image: masks pasted into the image; roi: probabilities in each box, for runtime.paste_masks',
    )
    parser.add_argument('--fp16', action='store_true', help='keep weights in float16: half the size, less exact')
    parser.add_argument('--opset', type=int, help="of ONNX; default: the exporter's choice")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE')
    args = parser.parse_args()
    args.format = args.format or SUFFIXES.get(args.out.suffix)
    if args.format is None:
        parser.error(f'--out {args.out}: expected a file that ends in {", ".join(SUFFIXES)}')
    return args


def main() -> None:
    args = parse_args()
    from ..engine.config import load_config, read_config
    from ..export.exporting import export_model
    from ..export.programs import ExportError
    from ..swap import swap_backbone

    def change(cfg: 'Config') -> 'Config':
        return swap_backbone(cfg, args.backbone, **args.backbone_options) if args.backbone else cfg

    try:
        cfg = change(read_config(args.config))
        cfg.merge_from_dict(args.cfg_options)
        split = None
        if args.verify == 'test':
            split = load_config(args.config, data_root=args.data_root, options=args.cfg_options, change=change)
        meta = export_model(
            cfg,
            args.checkpoint,
            args.out,
            file_format=args.format,
            images=None if split else args.verify,
            test_split=split,
            image_dtype=args.image_type,
            paste_masks=args.mask_size == 'image',
            fp16=args.fp16,
            opset=args.opset,
        )
    except (ExportError, ImportError, OSError, ValueError) as error:
        sys.exit(f'hybrid-backbones export: {error}')
    _print(args.out, meta['verification'])


def _print(out: Path, verification: dict[str, Any]) -> None:
    worst = ', '.join(f'{name} {value:.3g}' for name, value in verification['worst'].items())
    print(f'{out}: as PyTorch on {len(verification["batches"])} sizes of image ({worst})')
    for name, (file, model) in verification.get('metrics', {}).items():
        print(f'  {name}: {file:.4f} by the file, {model:.4f} by PyTorch')
