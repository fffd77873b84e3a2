"""Tests of what only a GPU can show; they are skipped without one."""

from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker('gpu')
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason='needs an NVIDIA GPU'))


@pytest.fixture(autouse=True)
def exact_fp32() -> None:
    """Without TF32, in products and convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
