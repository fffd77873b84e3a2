"""mmcv 2.2 under mmdet 3.3 and mmsegmentation 1.2, which refuse it by its number alone."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from . import import_hooks
from .log import log_patch

# The newest release that mmdet's and mmseg's `__init__` accept (`< 2.2.0`).
ACCEPTED = '2.1.0'


@contextmanager
def _accepted_mmcv() -> Iterator[None]:
    """mmcv says it is 2.1.0 while the check runs, if it is a 2.2, whose Python code is used in the same way."""
    import mmcv

    actual = mmcv.__version__
    if not re.match(r'2\.2\.\d+', actual):
        yield
        return
    mmcv.__version__ = ACCEPTED
    try:
        yield
    finally:
        mmcv.__version__ = actual
    log_patch('versions', f'mmdet and mmseg refuse mmcv {actual} by its number; they were shown {ACCEPTED}')


def install() -> None:
    for package in ('mmdet', 'mmseg'):
        import_hooks.around(package, _accepted_mmcv)
