"""What all tests share: markers and options, real images, a fixed seed."""

import multiprocessing
import os
import random
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# Tests that run side by side, and what they start, have a core each: several pools of threads on one would wait for
# each other.
if 'PYTEST_XDIST_WORKER' in os.environ:
    os.environ['OMP_NUM_THREADS'] = '1'

# No measurement decides what a test computes.
os.environ.setdefault('HYBRID_BACKBONES_PRODUCTS', 'plain')

# MMEngine and mmdet import transformers, which takes longer than all others, for an optimizer and models that no test
# uses. Nor do the processes that tests start have it; and the package that these import is this checkout's.
TESTS = Path(__file__).parent
PATHS = [str(TESTS / 'without_transformers'), str(TESTS.parent), *filter(None, [os.environ.get('PYTHONPATH')])]
os.environ['PYTHONPATH'] = os.pathsep.join(PATHS)
sys.modules['transformers'] = None
import mmengine.optim  # noqa: F401

del sys.modules['transformers']

import numpy as np
import pytest
import torch
from families import FAMILIES, NAMES, family_of

# Subsets of real data sets, which stay outside the repository: beside it, or in `data/` below `SHARED_DIR`.
REAL_IMAGES = Path(os.environ.get('SHARED_DIR', Path(__file__).parents[2] / 'shared')) / 'data'
NO_REAL_IMAGES = 'no real images'
# Few tests that take long, which start first: at the end, one worker would wait for another.
LONG = re.compile(r'tests/(end_to_end|benchmark/sweep)/|test_(shapes_training|configs|contract)\.py')


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--slow', action='store_true', help='run the tests that take minutes, too')


def pytest_configure(config: pytest.Config) -> None:
    for family in FAMILIES:
        config.addinivalue_line('markers', f'{family}: tests of hybrid_backbones/backbones/{family}.py')


def _families_asked_for(config: pytest.Config) -> set[str]:
    """Families in `-m 'convit or cvt'`; none where the expression has anything else."""
    words = set(re.findall(r'\w+', config.option.markexpr or '')) - {'or'}
    return words if words <= set(FAMILIES) else set()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import only what may hold tests of the families asked for."""
    families = _families_asked_for(config)
    if not families or collection_path.suffix != '.py' or collection_path.stem.removeprefix('test_') in families:
        return None
    return 'from families import' not in collection_path.read_text(encoding='utf-8') or None


def _family_of(item: pytest.Item) -> str | None:
    """By the name of the file, or by a parameter of the test that is the name of a backbone."""
    family = item.path.stem.removeprefix('test_')
    if item.path.parent.name == 'backbones' and family in FAMILIES:
        return family
    values = getattr(item, 'callspec', None) and item.callspec.params.values()
    return next((family_of(value) for value in values or () if isinstance(value, str) and value in NAMES), None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if family := _family_of(item):
            item.add_marker(family)
    if not config.option.slow:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker('slow')])
        items[:] = [item for item in items if not item.get_closest_marker('slow')]
    items.sort(key=lambda item: not LONG.search(item.path.as_posix()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests lacked data, also where there are none."""
    skipped = terminalreporter.stats.get('skipped', [])
    count = sum(NO_REAL_IMAGES in str(report.longrepr) for report in skipped)
    terminalreporter.write_line(f'{count} tests skipped for missing data in {REAL_IMAGES}')


@pytest.fixture(scope='session')
def real_images() -> Callable[[str], Path]:
    """Folder of a subset of real images by its name; the test is skipped where it is absent."""

    def find(name: str) -> Path:
        if not (REAL_IMAGES / name).is_dir():
            pytest.skip(f'{NO_REAL_IMAGES}: {REAL_IMAGES / name} is absent (set SHARED_DIR to point elsewhere)')
        return REAL_IMAGES / name

    return find


@pytest.fixture
def run_tool(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Callable[..., tuple[int | str, str, str]]:
    """Runs `tools/NAME.py` in this process, whose imports it shares: exit status or message, output, errors."""

    def run(name: str, *arguments: object) -> tuple[int | str, str, str]:
        path = TESTS.parent / 'tools' / f'{name}.py'
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, arguments)])
        status = None
        try:
            runpy.run_path(str(path), run_name='__main__')
        except SystemExit as end:
            status = end.code
        return status or 0, *capsys.readouterr()

    return run


@pytest.fixture(autouse=True)
def seed() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (OpenMMLab's pipelines draw from the global stream)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_workers_left() -> Iterator[None]:
    """End the data workers of runs that stopped: a collected loader waits 5 s for each of them."""
    yield
    for worker in multiprocessing.active_children():
        worker.terminate()
        worker.join()
