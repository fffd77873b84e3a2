"""What all tests share: the reference data beside the repository, and a fixed seed."""

import os
import random
from pathlib import Path

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
