"""Fixtures of the engine's tests."""

import os

import pytest


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy disk it takes seconds; what a test reads back is right without."""
    monkeypatch.setattr(os, 'fsync', lambda _: None)
