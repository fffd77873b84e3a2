"""Files that appear under their name only when they are complete and on disk."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What a killed process leaves of unfinished files, as a pattern of names.
LEFTOVERS = '.*.partial*'


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path`, of the same suffix, which takes its place at the end, or is gone after an error.

    The folder is made if need be.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.stem}.{uuid.uuid4().hex}.partial{path.suffix}')
    try:
        yield temporary
        with temporary.open('rb') as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: str | Path, content: str | bytes) -> Path:
    """Write `content`, text as UTF-8, to `path`: all of it, or nothing changes there."""
    with written_whole(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    return Path(path)
