"""Processes of a sweep's jobs, found by what they were started with."""

from pathlib import Path


def processes_of(folder: Path) -> list[int]:
    """Ids of the processes that do the job of a folder; a process appears here once it is its own, not before exec."""
    found = []
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            words = path.read_text().split('\0')  # nothing of one that has ended and waits for its parent
        except OSError:
            continue
        if str(folder) in words:
            found.append(int(path.parent.name))
    return found
