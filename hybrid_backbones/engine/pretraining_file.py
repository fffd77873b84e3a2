"""The file that pretraining writes: a classifier's weights, and what they come from."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from .._files import write_whole
from ..backbones._classifier import Classifier
from ..backbones.factory import create_classifier

SUFFIX = '.safetensors'
_ENTRY = 'pretraining'


def is_pretrained_file(source: str) -> bool:
    """Whether `source` is the name of such a file, rather than of a network of a library."""
    return Path(source).suffix == SUFFIX


def write_pretrained(path: Path, classifier: Classifier, facts: dict[str, Any]) -> None:
    """Write the weights under the authors' names, and `facts` as JSON into the file's header, whole or not at all.

    Args:
        facts: At least `backbone`, its `options` and the names of its `classes`.
    """
    # Clones: safetensors refuses shared memory.
    state = {
        key: value.cpu().clone(memory_format=torch.contiguous_format) for key, value in classifier.state_dict().items()
    }
    write_whole(path, save(state, {'format': 'pt', _ENTRY: json.dumps(facts)}))


def read_facts(path: str | Path) -> dict[str, Any]:
    """What the weights of a file come from: backbone, options, data, classes, seed, iterations, top-1, versions.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is not one that pretraining wrote.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'no file {path}')
    with safe_open(path, 'pt') as file:
        facts = file.metadata() or {}
    if _ENTRY not in facts:
        raise ValueError(f'{path} was not written by hybrid-backbones pretrain: its header has no entry {_ENTRY!r}')
    return json.loads(facts[_ENTRY])


def load_pretrained_classifier(path: str | Path) -> Classifier:
    """The classifier of a file, with its weights."""
    facts = read_facts(path)
    return create_classifier(facts['backbone'], len(facts['classes']), checkpoint=path, **facts['options'])
