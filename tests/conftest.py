"""What all tests share: the reference data beside the repository, and a fixed seed."""

import multiprocessing
import os
import random
from collections.abc import Iterator
from pathlib import Path

# Tests that run side by side, and what they start, have a core each: several pools of threads on one would wait for
# each other.
if 'PYTEST_XDIST_WORKER' in os.environ:
    os.environ['OMP_NUM_THREADS'] = '1'

import numpy as np
import pytest
import torch

import hybrid_backbones  # noqa: F401  (mends OpenMMLab before a test imports it)


@pytest.fixture(scope='session')
def shared() -> Path:
    """Folder of goldens and real images, beside the repository or at `SHARED_DIR`."""
    path = Path(os.environ.get('SHARED_DIR', Path(__file__).parents[2] / 'shared'))
    if not path.is_dir():
        pytest.skip(f'no reference data: {path} is absent (set SHARED_DIR to point elsewhere)')
    return path


@pytest.fixture(autouse=True)
def seed() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (OpenMMLab's pipelines draw from the global stream)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_workers_left() -> Iterator[None]:
    """Ends data workers of runs that stopped: a collected loader can no longer tell its own, and waits 5 s for each."""
    yield
    for worker in multiprocessing.active_children():
        worker.terminate()
        worker.join()
