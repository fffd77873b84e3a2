"""Backbones and classifiers by name, outside any config, as users of timm expect."""

from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ..checkpoints import load_pretrained
from ..registry import VARIANTS
from ._classifier import Classifier
from .pyramid import PyramidBackbone


def list_backbones(pattern: str = '*') -> list[str]:
    """Names that :func:`create_backbone` takes, sorted; `pattern` is a shell pattern such as `'conv2former*'`."""
    return sorted(name for name in VARIANTS if fnmatch(name, pattern))


def find_backbone(name: str) -> tuple[type[PyramidBackbone], dict[str, Any]]:
    """Class behind a name, and the options that the name stands for.

    Raises:
        ValueError: Unknown name; the nearest are suggested.
    """
    if name not in VARIANTS:
        nearest = get_close_matches(name.lower().replace('-', '_'), VARIANTS, n=3)
        hint = f'. Did you mean {" or ".join(nearest)}?' if nearest else ''
        raise ValueError(f'unknown backbone {name!r}; choose one of {", ".join(list_backbones())}{hint}')
    return VARIANTS[name]


def create_backbone(name: str, checkpoint: str | Path | None = None, **options: Any) -> PyramidBackbone:
    """Build a backbone by name, outside any config, initialised, in training mode.

    Args:
        name: One of :func:`list_backbones`.
        checkpoint: File, URL or `hybrid://NAME` of pretrained weights, as published by the authors or written by
            OpenMMLab.
        **options: The constructor's arguments, over those that the name stands for.

    Raises:
        ValueError: Unknown name.
        CheckpointError: The file is damaged, or of another architecture.
    """
    cls, defaults = find_backbone(name)
    if checkpoint is not None:
        options['init_cfg'] = dict(type='Pretrained', checkpoint=str(checkpoint))
    backbone = cls(**{**defaults, **options})
    backbone.init_weights()
    return backbone


def create_classifier(
    name: str, num_classes: int = 1000, checkpoint: str | Path | None = None, **options: Any
) -> Classifier:
    """Build a backbone with its authors' classification head, so that published files can be checked by their logits.

    Args:
        name: One of :func:`list_backbones`.
        num_classes: Classes of the head.
        checkpoint: File, URL or `hybrid://NAME` of weights, as published by the authors: trunk and head, nothing left
            over.
        **options: The backbone's options, over those that the name stands for.

    Raises:
        ValueError: Unknown name.
        CheckpointError: The file is damaged, or of another architecture or number of classes.
    """
    cls, defaults = find_backbone(name)
    classifier = Classifier(cls(**{**defaults, **cls.classifier_options, **options}), num_classes)
    if checkpoint is not None:
        load_pretrained(classifier, checkpoint)
    return classifier
