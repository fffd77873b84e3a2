"""Train and measure many backbones in many detectors and segmentors; see docs/transfer.md.

hybrid-backbones transfer run configs/transfer/smoke.yaml --slots 2
hybrid-backbones transfer run configs/transfer/proxy.yaml --data coco_mini=DIR --data ade20k_mini=DIR
hybrid-backbones transfer race configs/transfer/proxy.yaml --slots 2
hybrid-backbones transfer status configs/transfer/smoke.yaml
hybrid-backbones transfer verify configs/transfer/smoke.yaml --row ID
hybrid-backbones transfer report work_dirs/transfer/smoke
hybrid-backbones transfer check work_dirs/transfer/smoke --baseline docs/results/smoke --points 20 --memory 4
hybrid-backbones transfer ask SPEC.yaml --minutes 30
hybrid-backbones transfer schema row
"""

import argparse
import json
import signal
import sys
from pathlib import Path

from mmengine.config import DictAction

from ..engine.packaged_configs import CONFIGS

try:
    from ..benchmark.images import images_of_runs
    from ..benchmark.quoted import quoted_rows
    from ..benchmark.report import write_report
    from ..benchmark.report.check import Tolerances, compare_with_baseline
    from ..benchmark.row_models import ROW
    from ..benchmark.rows import Row, describe, read
    from ..benchmark.sweep import ENGINES, locate_datasets, read_jobs, run_sweep, status
    from ..benchmark.sweep.spec import Spec
    from ..benchmark.sweep.verify import rows_with_jobs, verify
except ModuleNotFoundError as error:
    sys.exit(f'hybrid-backbones transfer: {error}')

SPECS = CONFIGS / 'transfer'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    run = commands.add_parser('run', help='run the jobs of a spec that are not finished yet')
    race = commands.add_parser('race', help='train only the runs of a spec to the end that stay ahead')
    progress = commands.add_parser('status', help='show the progress of a sweep')
    question = commands.add_parser('ask', help='say which backbone of a spec suits its data, within a given time')
    for command in (run, race, progress, question):
        _add_spec_arguments(command)
    _add_run_arguments(run, list(ENGINES))
    _add_run_arguments(race, [name for name in ENGINES if name != 'slurm'])  # whose arrays are submitted as a whole
    _add_race_arguments(race)
    verify = commands.add_parser('verify', help='compute again what rows of a spec begin with; exit status 1 if not')
    _add_spec_arguments(verify)
    _add_data_argument(verify)
    verify.add_argument('--row', nargs='+', metavar='ID', help='ids of the rows; default: all finished runs')
    verify.add_argument('--threads', type=int, default=1, help='default: %(default)s')
    _add_data_argument(question)
    question.add_argument('--minutes', type=float, default=30, help='wall-clock time to spend; default: 30')
    report = commands.add_parser('report', help='write a CSV file, Markdown and an HTML page')
    report.add_argument('--out', type=Path, help='folder for them; default: report/ in the results folder')
    report.add_argument('--quoted', action='store_true', help='show published figures too, marked and not ranked')
    report.add_argument('--title', default='Transfer of backbones')
    check = commands.add_parser('check', help='compare with a baseline; exit status 1 if something deviates')
    check.add_argument('--baseline', type=Path, required=True, help='results folder that is known to be good')
    check.add_argument('--points', type=float, default=0.5, help='allowed deviation of metrics, in points')
    check.add_argument('--memory', type=float, default=0.1, help='allowed deviation of peak memory, as a fraction')
    check.add_argument(
        '--latency', type=float, help='allowed deviation of latency, as a fraction; default: not compared'
    )
    for command in (report, check):
        command.add_argument('results', type=Path, help='results folder')
    schema = commands.add_parser('schema', help='print the JSON schema of specs or of rows')
    schema.add_argument('kind', choices=['spec', 'row'])
    args = parser.parse_args()
    if args.command in ('run', 'race', 'verify', 'status', 'ask'):
        if bool(args.spec) == bool(args.tier):
            parser.error('give either a spec file or --tier')
        args.spec = Path(args.spec or SPECS / f'{args.tier}.yaml')
        args.results = args.results or Path('work_dirs') / 'transfer' / args.spec.stem
    return args


def _add_spec_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('spec', nargs='?', help='YAML file that says what to measure')
    parser.add_argument('--tier', choices=['smoke', 'proxy', 'full'], help="this package's spec of that tier")
    parser.add_argument('--results', type=Path, help='results folder; default: work_dirs/transfer/NAME_OF_THE_SPEC')


def _add_data_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--data',
        type=_named_folder,
        action='append',
        default=[],
        metavar='NAME=FOLDER',
        help='folder of a dataset of the spec; repeatable. Default: the environment variable '
        'HYBRID_BACKBONES_DATA_NAME, else where the config says',
    )


def _add_run_arguments(parser: argparse.ArgumentParser, engines: list[str]) -> None:
    _add_data_argument(parser)
    parser.add_argument('--engine', choices=engines, default='local', help='where the jobs run')
    parser.add_argument('--slots', type=int, default=1, help='concurrent training runs; profiles run alone')
    parser.add_argument(
        '--threads', type=int, help="threads of a run; default: the machine's cores over the slots, 1 on clusters"
    )
    parser.add_argument(
        '--engine-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='ray: address=...; slurm: those of submitit, such as slurm_partition=gpu gpus_per_node=1 timeout_min=600',
    )


def _add_race_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--eta', type=int, default=3, help='one of so many runs goes on; default: %(default)s')
    parser.add_argument(
        '--rungs',
        type=int,
        nargs='+',
        metavar='N',
        help='iterations, or epochs where the schedule counts those, at which runs are compared; default: the length '
        'of the schedule divided by eta squared and by eta',
    )


def _named_folder(text: str) -> tuple[str, Path]:
    name, separator, folder = text.partition('=')
    if not (name and separator and folder):
        raise argparse.ArgumentTypeError(f'expected NAME=FOLDER, got {text!r}')
    return name, Path(folder)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _run(args: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, _interrupt)  # as Slurm ends jobs
    jobs = locate_datasets(read_jobs(args.spec), dict(args.data))
    options = dict(args.engine_options, threads=args.threads)
    ends = run_sweep(args.results, jobs, ENGINES[args.engine], args.slots, **options)
    return int(bool(ends.keys() & {'failed', 'killed'}))


def _race(args: argparse.Namespace) -> int:
    from ..benchmark.race import run_race

    signal.signal(signal.SIGTERM, _interrupt)
    jobs = locate_datasets(read_jobs(args.spec), dict(args.data))
    options = dict(args.engine_options, threads=args.threads)
    ends = run_race(args.results, jobs, ENGINES[args.engine], args.slots, args.rungs, args.eta, **options)
    return int(bool(ends.keys() & {'failed', 'killed'}))


def _verify(args: argparse.Namespace) -> int:
    pairs = rows_with_jobs(_rows(args.results), read_jobs(args.spec), args.row)
    jobs = locate_datasets([job for _, job in pairs], dict(args.data))
    wrong = 0
    for (row, _), job in zip(pairs, jobs, strict=True):
        problems = verify(args.results, row, job, args.threads)
        wrong += bool(problems)
        print(
            '\n  '.join([f'{row["id"]}, {describe(row)}: {"not " if problems else ""}verified', *problems]), flush=True
        )
    return int(bool(wrong))


def _status(args: argparse.Namespace) -> int:
    print(status(args.results, read_jobs(args.spec)))
    return 0


def _ask(args: argparse.Namespace) -> int:
    from ..benchmark.ask import ask, read_question

    print(ask(read_question(args.spec, dict(args.data), args.results), args.results, args.minutes).text)
    return 0


def _rows(folder: Path) -> list[Row]:
    if not folder.is_dir():
        raise FileNotFoundError(f'no results folder {folder}; hybrid-backbones transfer run writes one')
    return read(folder)


def _report(args: argparse.Namespace) -> int:
    rows = _rows(args.results)
    rows += quoted_rows(rows) if args.quoted else []
    images = images_of_runs(args.results, rows)
    for path in write_report(rows, args.out or args.results / 'report', args.title, images):
        print(path)
    return 0


def _check(args: argparse.Namespace) -> int:
    tolerances = Tolerances(args.points, args.memory, args.latency)
    problems = compare_with_baseline(_rows(args.results), _rows(args.baseline), tolerances)
    print('\n'.join(problems) or f'{args.results} agrees with {args.baseline}')
    return int(bool(problems))


def _schema(args: argparse.Namespace) -> int:
    print(json.dumps(Spec.model_json_schema() if args.kind == 'spec' else ROW.json_schema(), indent=2))
    return 0


def main() -> int | str:
    args = parse_args()
    try:
        commands = dict(
            run=_run, race=_race, verify=_verify, status=_status, report=_report, check=_check, ask=_ask, schema=_schema
        )
        return commands[args.command](args)
    except KeyboardInterrupt:
        return 'interrupted: finished rows are kept, running jobs are marked as killed; the same command continues'
    except (OSError, ImportError, ValueError) as error:
        return f'{error}'
