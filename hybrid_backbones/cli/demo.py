"""Draw what a run has learned: predictions beside the truth, curves of losses and metrics; print the final metrics."""

import argparse
from pathlib import Path

from ..visualize import draw_curves, final_metrics, find_run, save_predictions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dir', type=Path, help='work directory of hybrid-backbones train')
    parser.add_argument('--num-images', type=int, default=8, help='images to draw predictions for')
    parser.add_argument('--score-thr', type=float, default=0.5, help='detections below this score are not drawn')
    args = parser.parse_args()
    run = find_run(args.work_dir)
    pictures = [
        draw_curves(run.scalars, args.work_dir / 'curves.png'),
        *save_predictions(
            run.config,
            run.checkpoint,
            args.work_dir / 'predictions',
            num_images=args.num_images,
            score_thr=args.score_thr,
        ),
    ]
    print('\nLast validation:')
    for name, value in final_metrics(run.scalars).items():
        print(f'  {name:<20} {value:.3f}')
    print('Pictures:')
    for picture in pictures:
        print(f'  {picture}')
