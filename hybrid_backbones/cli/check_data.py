"""Check the data of a config before training: `hybrid-backbones check-data my_config.py --full --out report.html`."""

import argparse
from functools import partial
from pathlib import Path

from mmengine.config import DictAction
from tqdm import tqdm

from .._files import write_whole
from ..datasets.checks import DataView, examine
from ..datasets.page import write_page
from ..datasets.repair import repair
from ..engine.config import load_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Check the data of a config, its heads and evaluators against them')
    parser.add_argument('config', help='file, or name of a config: hybrid_backbones::NAME.py, mmdet::FOLDER/NAME.py')
    parser.add_argument('--data-root', help="folder of the data, in place of the config's (data/coco, data/ade/...)")
    parser.add_argument('--full', action='store_true', help='read every image and label map, not a sample of 200')
    parser.add_argument('--out', metavar='FILE.html', help='write a page with counts, samples and findings')
    parser.add_argument('--fix', metavar='OUT_DIR', help='write repaired annotation files and label maps there')
    parser.add_argument('--allow', nargs='+', default=[], metavar='CODE', help='findings that pass on purpose')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings over those of the config, such as train_dataloader.dataset.ann_file=train.json',
    )
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    cfg = load_config(args.config, data_root=args.data_root, options=args.cfg_options)
    progress = partial(tqdm, leave=False, disable=not args.full)
    data = DataView(cfg, full=args.full, progress=progress)
    report = examine(data, args.allow)
    print(report.text() or 'Nothing was found.')
    if args.out:
        write_whole(args.out, write_page(data, report, f'Data of {args.config}'))
        print(f'Written: {args.out}')
    if args.fix:
        print('Repaired files, and the settings that use them:', *repair(data, Path(args.fix)), sep='\n')
    print(f'{args.config}: {report.summary()}')
    return 1 if report.errors else 0
