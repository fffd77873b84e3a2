"""The files that a spec refers to: checkpoints and configs."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from ...checkpoints.hub import HUB
from ...checkpoints.reading import local_file
from ...engine.config import read_config


def find_checkpoint(source: str | None, folder: Path) -> Path | None:
    """The file of a checkpoint, downloaded first where it is a URL or one of the index; paths start from `folder`.

    Raises:
        OSError, ValueError: It does not exist, or cannot be downloaded.
    """
    if source is None:
        return None
    path = local_file(source if '://' in source or source.startswith(HUB) else str(folder / source)).resolve()
    if not path.is_file():
        raise FileNotFoundError(f'no file {path}')
    return path


@cache
def load_framework_config(path: str, folder: Path) -> tuple[str, dict[str, Any]]:
    """Absolute path of a config, and its values, which do not depend on the machine; paths start from `folder`."""
    location = path if '::' in path else str((folder / path).resolve())
    return location, json.loads(json.dumps(read_config(location).to_dict(), default=str))
