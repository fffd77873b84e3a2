"""Answers of the probes, from processes of their own, so that none of them can take the doctor down."""

import functools
import json
import signal
import subprocess
import sys
from typing import Any


@functools.cache
def answers(*probes: str) -> dict[str, dict[str, Any]]:
    """Answer of every probe of :mod:`.probes`, from one process, or from a new one after each that crashed."""
    found: dict[str, dict[str, Any]] = {}
    while left := [probe for probe in probes if probe not in found]:
        command = [sys.executable, '-m', f'{__package__}.probes', *left]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        lines = done.stdout.splitlines()
        found |= {probe: json.loads(line) for probe, line in zip(left, lines, strict=False)}
        if len(lines) < len(left):
            found[left[len(lines)]] = dict(error=f'the interpreter {_end(done.returncode)}')
    return found


def _end(status: int) -> str:
    """How a process ended: `crashed with SIGSEGV` or `exited with status 3`."""
    return f'crashed with {signal.Signals(-status).name}' if status < 0 else f'exited with status {status}'
