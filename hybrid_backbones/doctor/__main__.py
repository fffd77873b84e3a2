"""The command: a table of what is installed, every problem with its fix, and whether a detector can be trained."""

import argparse
import sys

from . import checks
from .checks import Problem, Row


def show(rows: list[Row], problems: list[Problem]) -> str:
    """The table, the problems with their fixes, and the verdict."""
    widths = [max(len(getattr(row, column)) for row in rows) for column in ('what', 'version')]
    lines = [f'{row.what:{widths[0]}}  {row.version:{widths[1]}}  {row.remark}'.rstrip() for row in rows]
    for number, problem in enumerate(problems, 1):
        lines += ['', f'Problem {number}: {problem.text}', f'  Fix: {problem.fix}']
    broken = any(problem.fatal for problem in problems)
    verdict = 'Training a detector from a config does NOT work here.' if broken else 'Training a detector works here.'
    return '\n'.join([*lines, '', verdict])


def main() -> int:
    """Print the findings; 1 if the main job, training a detector, fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--speed', action='store_true', help="only the rate of this CPU's matrix products, and which the package uses"
    )
    if parser.parse_args().speed:
        from .speed import table  # needs torch, which the checks do not

        print(table())
        return 0
    findings = [check() for check in checks.CHECKS]
    problems = [problem for _, found in findings for problem in found]
    print(show([row for rows, _ in findings for row in rows], problems))
    return int(any(problem.fatal for problem in problems))


if __name__ == '__main__':
    sys.exit(main())
