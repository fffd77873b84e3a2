"""What all tests share: markers and options, real images, a fixed seed."""

import functools
import multiprocessing
import os
import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# Tests that run side by side, and what they start, have a core each: several pools of threads on one would wait for
# each other.
if 'PYTEST_XDIST_WORKER' in os.environ:
    os.environ['OMP_NUM_THREADS'] = '1'

# No measurement decides what a test computes.
os.environ.setdefault('HYBRID_BACKBONES_PRODUCTS', 'plain')

# MMEngine registers an optimizer of transformers, whose import takes longer than all others; no test uses it.
sys.modules['transformers'] = None
import mmengine.optim

del sys.modules['transformers']

# For each base of a config, MMEngine reads all of mmdet's or mmseg's metafiles: a second per config.
mmengine.config.utils._get_cfg_metainfo = functools.cache(mmengine.config.utils._get_cfg_metainfo)

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
