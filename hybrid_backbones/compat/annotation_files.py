"""Annotation files as users have them: with a byte-order mark, and with categories in an order of their own.

mmdet 3.3 numbers labels by the order of `categories` in each file, whatever `metainfo.classes` says: a validation file
that lists them in another order than the training file turns AP .905 into .000 without a message (mmdetection#4167,
#9195, #10675). `CocoDataset` and `CocoMetric` both ask `COCO.get_cat_ids` for the ids of their classes, so that the
order is put right in one place, for both.
"""

import builtins
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from . import import_hooks
from .log import log_patch

BYTE_ORDER_MARK = '\ufeff'


def _open_without_mark(file: Any, mode: str = 'r', *args: Any, **kwargs: Any) -> Any:
    """`open` that skips a byte-order mark of text files; these are UTF-8, as JSON demands."""
    if 'b' not in mode and not args:
        kwargs.setdefault('encoding', 'utf-8-sig' if mode == 'r' else 'utf-8')
    return builtins.open(file, mode, *args, **kwargs)  # noqa: PTH123  (it stands in for `open`)


def _patch_open(module: ModuleType) -> None:
    module.open = _open_without_mark


def _patch_get_text(module: ModuleType) -> None:
    get_text = module.LocalBackend.get_text

    def get_text_without_mark(self: Any, *args: Any, **kwargs: Any) -> str:
        return get_text(self, *args, **kwargs).removeprefix(BYTE_ORDER_MARK)

    module.LocalBackend.get_text = get_text_without_mark


def _patch_category_order(module: ModuleType) -> None:
    def get_cat_ids(
        self: Any, cat_names: Sequence[str] = (), sup_names: Sequence[str] = (), cat_ids: Sequence[int] = ()
    ) -> list:
        found = self.getCatIds(cat_names, sup_names, cat_ids)
        if isinstance(cat_names, str) or not cat_names:
            return found
        position = {name: i for i, name in enumerate(cat_names)}
        return sorted(found, key=lambda cat_id: position[self.cats[cat_id]['name']])

    module.COCO.get_cat_ids = get_cat_ids
    log_patch(
        'category_order', 'labels are numbered by metainfo.classes, not by the order of `categories` in each file'
    )


def install() -> None:
    import_hooks.after('mmdet.datasets.api_wrappers.coco_api', _patch_category_order)
    import_hooks.after('mmengine.fileio.backends.local_backend', _patch_get_text)
    for name in ('pycocotools.coco', 'lvis.lvis'):
        import_hooks.after(name, _patch_open)
