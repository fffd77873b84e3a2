"""Files in torch.hub's folder: downloaded completely or not at all, and verified at every use."""

import hashlib
import http.client
import json
import urllib.request
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm

from .._files import write_whole, written_whole
from .errors import CheckpointError

TIMEOUT_S = 30
_CHUNK = 2**20
# Some hosts refuse urllib's default user agent.
_HEADERS = {'User-Agent': 'hybrid_backbones'}


def cache_folder() -> Path:
    """Where torch.hub keeps checkpoints; `TORCH_HOME` and `torch.hub.set_dir` move it."""
    return Path(torch.hub.get_dir(), 'checkpoints')


def download(url: str, path: Path, check: Callable[[Path], None] = lambda path: None) -> None:
    """Download a file with a progress bar.

    Args:
        url: Of http or https.
        path: Where it goes; its folder is made.
        check: Raises for a file that is not the right one, before it takes its place.

    Raises:
        CheckpointError: No answer, not a file, or cut short; nothing is left at `path`.
    """
    try:
        with written_whole(path) as temporary:
            _fetch(url, temporary, path.name)
            check(temporary)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise CheckpointError(
            f'cannot download {url}: {error}. Nothing was written. Fetch it by hand to {path}, or try again'
        ) from error


def _fetch(url: str, path: Path, name: str) -> None:
    request = urllib.request.Request(url, headers=_HEADERS)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer, path.open('wb') as file:
        if answer.headers.get_content_type() == 'text/html':
            raise ValueError('the server sent a web page instead of a file: the link has moved, or asks for a browser')
        length = answer.headers.get('Content-Length')
        total = None if length is None else int(length)
        with tqdm(total=total, unit='B', unit_scale=True, unit_divisor=1024, desc=name) as bar:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        if total is not None and file.tell() != total:
            raise ValueError(f'cut short: {file.tell():,} of {total:,} bytes')


def record_of(path: Path) -> Path:
    """Where the hash of a cached file without a published hash is kept."""
    return path.with_name(f'{path.name}.sha256.json')


def verify(file: Path, path: Path, published: str, origin: str, record: Path | None = None) -> None:
    """Compare a file with its published hash and with the hash at its first use, which is recorded.

    Args:
        file: What is checked.
        path: Its place in the cache, beside which the record is; `file` itself once it is there.
        published: SHA-256 in hexadecimal or what it begins with, '' for unknown.
        origin: Where the file comes from, for the messages.
        record: Where the hash at the first use is kept; default: beside `path`.

    Raises:
        CheckpointError: Another hash; both are named.
    """
    again = f'delete it, and get it again from {origin}' if file == path else f'what {origin} sent was not kept'
    found, record = check_hash(file, path, published, again), record or record_of(path)
    known = _recorded(record)
    if known is None:
        write_whole(record, json.dumps({'sha256': found, 'bytes': file.stat().st_size, 'origin': origin}) + '\n')
    elif known != found:
        raise CheckpointError(
            f'{path} had the SHA-256 {known} when it was first used, and has {found} now: it is damaged or was '
            f'replaced; {again}. If you trust the new one, delete the record of the old one, {record}'
        )


def check_hash(file: Path, path: Path, published: str, again: str) -> str:
    """Compare a file with its published hash, or with the known first digits of it.

    Args:
        file: What is checked.
        path: Its place, for the message.
        published: SHA-256 in hexadecimal or what it begins with, '' for unknown.
        again: How to get it once more, for the message.

    Returns:
        Its hash.

    Raises:
        CheckpointError: Another hash; both are named.
    """
    found = sha256(file)
    if not found.startswith(published):
        raise CheckpointError(
            f'{path} should have the published SHA-256 {published}, but has {found}: it is damaged or another file; '
            f'{again}'
        )
    return found


def sha256(file: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with file.open('rb') as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _recorded(record: Path) -> str | None:
    try:
        return json.loads(record.read_text())['sha256']
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f'{record} is damaged ({error!r}): delete it, and the hash is recorded anew') from error
