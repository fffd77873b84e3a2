"""The task of an OpenMMLab config, detection or segmentation, and the model that has the backbone."""

from collections.abc import Mapping
from typing import Any


def is_segmentor(cfg: Mapping[str, Any]) -> bool:
    """Whether the model of a config is a segmentor of mmseg rather than a detector of mmdet.

    `default_scope` decides; a config without it has a segmentor if its model has a `decode_head`.
    """
    if scope := cfg.get('default_scope'):
        return scope == 'mmseg'
    return 'decode_head' in (cfg.get('model') or {})


def inner_model(model: dict[str, Any]) -> dict[str, Any]:
    """The detector or segmentor in a wrapper such as SoftTeacher or a tracker, or `model` itself where it is none."""
    for key in ('detector', 'segmentor', 'module'):
        part = model.get(key)
        # Detectron2's own detectors, which mmdet wraps, have a backbone that is no module of a registry.
        if isinstance(part, dict) and 'type' in (part.get('backbone') or {}):
            return inner_model(part)
    return model
