"""The task of an OpenMMLab config: detection or segmentation."""

from collections.abc import Mapping
from typing import Any


def is_segmentor(cfg: Mapping[str, Any]) -> bool:
    """Whether the model of a config is a segmentor of mmseg rather than a detector of mmdet.

    `default_scope` decides; a config without it has a segmentor if its model has a `decode_head`.
    """
    if scope := cfg.get('default_scope'):
        return scope == 'mmseg'
    return 'decode_head' in (cfg.get('model') or {})
