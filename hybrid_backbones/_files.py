"""Files that appear under their name only when they are complete and on disk, and the folder of cached ones."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SUFFIX = '.partial'


def cache_folder() -> Path:
    """`$HYBRID_BACKBONES_CACHE`, else `hybrid_backbones` in `$XDG_CACHE_HOME`, else in `~/.cache`."""
    cache = os.environ.get('HYBRID_BACKBONES_CACHE')
    if cache:
        return Path(cache).expanduser()
    return Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'hybrid_backbones'


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """A file to write to, of the same name in a hidden folder beside `path`, which takes its place at the end.

    The folder of `path` is made if need be; after an error nothing is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(_SUFFIX, f'.{path.name}.', path.parent))
    try:
        temporary = folder / path.name
        yield temporary
        with temporary.open('rb') as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_whole(path: str | Path, content: str | bytes) -> Path:
    """Write `content`, text as UTF-8, to `path`: all of it, or nothing changes there."""
    with written_whole(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    return Path(path)


def remove_leftovers(folder: str | Path) -> None:
    """Delete what killed processes left of unfinished files in `folder`."""
    for leftover in Path(folder).glob(f'.*{_SUFFIX}'):
        shutil.rmtree(leftover, ignore_errors=True)
