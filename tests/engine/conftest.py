"""Fixtures of the engine's tests."""

import os

import pytest
from torch import nn


@pytest.fixture
def uninitialised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the drawing of initial weights: large variants are built for their names and shapes alone."""
    for name in ('kaiming_uniform_', 'trunc_normal_', 'uniform_', 'normal_'):
        monkeypatch.setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy disk it takes seconds; what a test reads back is right without."""
    monkeypatch.setattr(os, 'fsync', lambda _: None)
