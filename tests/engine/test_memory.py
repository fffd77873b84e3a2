"""The allocator's setting, in a process of its own because it cannot be taken back."""

import platform
import subprocess
import sys

import pytest
import torch

from hybrid_backbones.engine import memory

SCRIPT = """
import resource, torch
from hybrid_backbones.engine.memory import keep_freed_memory
print(keep_freed_memory())
torch.ones(16_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(16_000_000)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * 4096 / 64e6)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc' or torch.cuda.is_available(), reason='for glibc and CPUs')
def test_freed_blocks_are_used_again():
    result = subprocess.run([sys.executable, '-c', SCRIPT], capture_output=True, text=True, check=True)
    done, faulted = result.stdout.split()
    assert done == 'True'
    # Of twenty buffers, each of which would fault in anew; a system that reclaims idle pages takes some back.
    assert float(faulted) < 15


def test_left_alone_elsewhere(monkeypatch):
    monkeypatch.setattr(memory.ctypes, 'CDLL', None)
    with monkeypatch.context() as patch:
        patch.setattr(memory.platform, 'libc_ver', lambda: ('', ''))
        assert not memory.keep_freed_memory()
    monkeypatch.setattr(memory.torch.cuda, 'is_available', lambda: True)
    assert not memory.keep_freed_memory()
