"""A CUDA device without a GPU: the real dispatcher, autocast and allocator, kernels counted and not run."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parents[1]
TOOL = Path(os.environ.get('SHARED_DIR', TESTS.parents[1] / 'shared')) / 'tools/null_cuda/run'


def _missing() -> str | None:
    """What the device lacks here; None for nothing."""
    if sys.platform != 'linux' or torch.version.cuda is None:
        return 'needs a CUDA build of PyTorch on Linux'
    if not TOOL.is_file():
        return f'{TOOL} is absent (set SHARED_DIR to point elsewhere)'
    if shutil.which('cc') is None:
        return 'needs a C compiler (cc)'
    headers = Path(torch.__file__).parents[1] / 'triton/backends/nvidia/include'
    return None if headers.is_dir() else f'{headers} is absent (pip install triton)'


@pytest.fixture(scope='session')
def run_on_null_device(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs a Python script of this folder on the device and returns what it prints; skips where it cannot."""
    if reason := _missing():
        pytest.skip(f'null device: {reason}')
    build = tmp_path_factory.mktemp('null_cuda')
    own = {
        'NULL_CUDA_BUILD': str(build),
        'PYTHONPATH': os.pathsep.join([os.environ['PYTHONPATH'], str(TESTS)]),
    }

    def run(script: str, *args: str) -> str:
        here = Path(__file__).parent
        command = [str(TOOL), sys.executable, '-W', 'ignore', str(here / 'program.py'), str(here / script), *args]
        done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
