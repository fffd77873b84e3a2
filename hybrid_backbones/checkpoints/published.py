"""The index of published classifiers: sources, hashes, backbones. `hybrid://NAME` names one of them, or a model of
:mod:`hybrid_backbones.checkpoints.published_models`, wherever a file is expected.

The table is `published.json`, a line per file under the family that it is of; `hybrid-backbones weights` lists it.
"""

import difflib
import functools
import json
import logging
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from .errors import ByHandError, CheckpointError
from .published_models import PublishedModel, list_models
from .sources import SCHEME, PublishedFile, Source

# Licences that allow commercial use and ask for no consent.
PERMISSIVE = ('Apache-2.0', 'MIT')


@dataclass(frozen=True)
class Published(PublishedFile):
    """A published classifier.

    Args:
        name: By which `hybrid://` finds it.
        backbone: Name for `create_backbone`.
        options: Of the backbone, that the file implies.
        data: What it was trained on.
        size: Of the training images, in pixels; None where that is not published.
        top1: On ImageNet-1k in percent, as published; None for files that cannot be measured so, and where it is not
            known here.
        classes: Of its head; None where they are not published.
        parameters: Of the network with its head, of the trunk alone where the classes are not known.
        config: One in `configs/` that it is for; empty where the backbone has none, and goes into any by `--backbone`.
        sources: Where it can be had, in the order in which they are tried.
        family: Its architecture.
        licence: Of the repository that publishes it.
        source: Page that states these figures.
        symmetric_images: Whether it was trained on images from -1 to 1 instead of those that its backbone expects.
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
    sources: tuple[Source, ...]
    family: str
    licence: str
    source: str
    symmetric_images: bool = False
    note: str = ''


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
    rows = (
        Published(
            **row | dict(sources=tuple(Source(**place) for place in row['sources'])),
            family=family,
            licence=licence,
            source=source,
        )
        for row in files
    )
    return Family(family, licence, source, note, tuple(rows))


def list_published(pattern: str = '*') -> list[Published]:
    """Files whose name matches a shell pattern such as `'cvt*'`, in the order of the index."""
    return [row for family in families() for row in family.files if fnmatch(row.name, pattern)]


def find_published(name: str) -> Published | PublishedModel:
    """The classifier, detector or segmentor of that name.

    Raises:
        CheckpointError: There is none; the nearest names are given.
    """
    files: list[Published | PublishedModel] = [*list_published(), *list_models()]
    rows = {row.name: row for row in files}
    if name not in rows:
        near = [other for other in rows if other.startswith(f'{name.split("_")[0]}_')]
        named = ', '.join(difflib.get_close_matches(name, rows, n=4) or near[:8]) or 'see hybrid-backbones weights list'
        raise CheckpointError(f'no published file {SCHEME}{name}; there are: {named}')
    return rows[name]


def locate(name: str) -> Path:
    """Path of a published file, downloaded if need be, with its hash verified.

    Raises:
        ByHandError: It is not there, and only a person can get it; how.
        CheckpointError: Unknown name; no source has it, or all fail, with the reason of each; or of another hash than
            published. Nothing half-written is left.
    """
    row = find_published(name)
    found = row.find()
    if found:
        source, path = found
        source.verify(path)
    else:
        path = _fetch(row)
    if row.licence not in PERMISSIVE:
        _report_licence(name, row.licence, row.source)
    return path


def _fetch(row: PublishedFile) -> Path:
    reasons = []
    for source in row.sources:
        try:
            if source.downloadable:
                return source.fetch()
        except CheckpointError as error:
            reasons.append(str(error))
    kind = CheckpointError if reasons else ByHandError
    places = '\n  or '.join(source.by_hand() for source in row.sources)
    failed = ''.join(f'\n  {reason}' for reason in reasons)
    why = 'cannot be downloaded:' if reasons else 'can only be fetched by hand'
    raise kind(f'{SCHEME}{row.name} {why}{failed}\n  By hand: {places}')


@functools.cache
def _report_licence(name: str, licence: str, source: str) -> None:
    """Log, once per process, a licence that restricts what the weights may be used for."""
    # Not at the top: importing MMEngine registers the backbones, which import this module.
    from mmengine.logging import print_log

    text = f'{SCHEME}{name} is under {licence}, which restricts its use; see {source}'
    print_log(text, logger='current', level=logging.WARNING)
