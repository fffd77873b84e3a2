"""Many backbones in many detectors and segmentors, measured alike: run, look how far it is, report, compare.

python tools/transfer.py run configs/transfer/smoke.yaml --slots 2
python tools/transfer.py status configs/transfer/smoke.yaml
python tools/transfer.py report work_dirs/transfer/smoke
python tools/transfer.py check work_dirs/transfer/smoke --baseline docs/results/smoke --points 20 --memory 4
"""

import argparse
import signal
import sys
from pathlib import Path

from mmengine.config import DictAction

import hybrid_backbones  # noqa: F401  (first: it mends what MMEngine needs to read a config)
from hybrid_backbones.benchmark.quoted import quoted_rows
from hybrid_backbones.benchmark.report import write_report
from hybrid_backbones.benchmark.report.check import Tolerances, compare_with_baseline
from hybrid_backbones.benchmark.rows import Row, read
from hybrid_backbones.benchmark.sweep import ENGINES, read_spec, run_sweep, status

SPECS = Path(__file__).parents[1] / 'configs' / 'transfer'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    run = commands.add_parser('run', help='do what a spec asks for and is not finished yet')
    run.add_argument('--engine', choices=list(ENGINES), default='local', help='who does the jobs')
    run.add_argument('--slots', type=int, default=1, help='training runs at a time; profiles are alone')
    run.add_argument('--threads', type=int, help="of a run; default: the machine's cores over the slots, on clusters 1")
    run.add_argument(
        '--engine-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='ray: address=...; slurm: those of submitit, such as slurm_partition=gpu gpus_per_node=1 timeout_min=600',
    )
    look = commands.add_parser('status', help='how far it is')
    for command in (run, look):
        command.add_argument('spec', nargs='?', help='what to measure, a YAML file')
        command.add_argument('--tier', choices=['smoke', 'proxy', 'full'], help='our spec of that tier')
        command.add_argument(
            '--results', type=Path, help='results folder; default: work_dirs/transfer/NAME_OF_THE_SPEC'
        )
    report = commands.add_parser('report', help='CSV, Markdown and a page of what there is')
    report.add_argument('--out', type=Path, help='folder for them; default: report/ in the results folder')
    report.add_argument('--quoted', action='store_true', help='published figures beside them, marked and not ranked')
    report.add_argument('--title', default='Transfer of backbones')
    check = commands.add_parser('check', help='compare with a baseline; exit status 1 where something deviates')
    check.add_argument('--baseline', type=Path, required=True, help='results folder that is known to be good')
    check.add_argument('--points', type=float, default=0.5, help='that metrics may deviate by, either way')
    check.add_argument('--memory', type=float, default=0.1, help='fraction that peak memory may deviate by')
    check.add_argument('--latency', type=float, help='fraction that latency may deviate by; default: not compared')
    for command in (report, check):
        command.add_argument('results', type=Path, help='results folder')
    args = parser.parse_args()
    if args.command in ('run', 'status'):
        if (args.spec is None) == (args.tier is None):
            parser.error('give a spec, or --tier for one of ours')
        args.spec = Path(args.spec) if args.spec else SPECS / f'{args.tier}.yaml'
        args.results = args.results or Path('work_dirs') / 'transfer' / args.spec.stem
    return args


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _run(args: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, _interrupt)  # as Slurm ends jobs
    options = dict(args.engine_options, threads=args.threads)
    ends = run_sweep(args.results, read_spec(args.spec), ENGINES[args.engine], args.slots, **options)
    return int(bool(ends.keys() & {'failed', 'killed'}))


def _status(args: argparse.Namespace) -> int:
    print(status(args.results, read_spec(args.spec)))
    return 0


def _rows(folder: Path) -> list[Row]:
    if not folder.is_dir():
        raise FileNotFoundError(f'no results folder {folder}; tools/transfer.py run writes one')
    return read(folder)


def _report(args: argparse.Namespace) -> int:
    rows = _rows(args.results)
    rows += quoted_rows(rows) if args.quoted else []
    for path in write_report(rows, args.out or args.results / 'report', args.title):
        print(path)
    return 0


def _check(args: argparse.Namespace) -> int:
    tolerances = Tolerances(args.points, args.memory, args.latency)
    problems = compare_with_baseline(_rows(args.results), _rows(args.baseline), tolerances)
    print('\n'.join(problems) or f'{args.results} is as {args.baseline}')
    return int(bool(problems))


def main() -> int | str:
    args = parse_args()
    try:
        return dict(run=_run, status=_status, report=_report, check=_check)[args.command](args)
    except KeyboardInterrupt:
        return 'interrupted: finished rows are kept, what was running is marked; the same command goes on'
    except (OSError, ImportError, ValueError) as error:
        return f'{error}'


if __name__ == '__main__':
    sys.exit(main())
