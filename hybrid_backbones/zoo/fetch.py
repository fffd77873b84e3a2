"""Download files of the index."""

from ..checkpoints.errors import CheckpointError
from ..checkpoints.published import find_published, list_published, locate
from ..checkpoints.published_models import list_models


def fetch(patterns: list[str], everything: bool = False) -> str:
    """Download published files and check their hashes.

    Args:
        patterns: Names of the index, or shell patterns of them.
        everything: All classifiers that a program can download, instead.

    Returns:
        Where each is.

    Raises:
        CheckpointError: Some are not to be had, after all others were fetched; which, and why. Or an unknown name.
        ValueError: Neither names nor `everything`.
    """
    if everything:
        names = [row.name for row in list_published() if row.downloadable or row.find()]
    elif patterns:
        rows = [row for p in patterns for row in ([*list_published(p), *list_models(p)] or [find_published(p)])]
        names = list(dict.fromkeys(row.name for row in rows))
    else:
        raise ValueError('give names of files, or --all')
    found, missing = [], []
    for name in names:
        try:
            found.append(f'{name:48}{locate(name)}')
        except CheckpointError as error:
            missing.append(str(error))
    if missing:
        raise CheckpointError('\n'.join([f'{len(missing)} of {len(names)} files are missing', *missing]))
    return '\n'.join(found)
