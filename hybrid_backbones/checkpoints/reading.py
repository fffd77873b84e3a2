"""From a file or URL to a flat state dict, without running anything that the file holds."""

import argparse
import pickle
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor

from ..compat.checkpoints import weights_only
from .bundle import read_archive, read_bundle
from .download import cache_folder, download
from .errors import CheckpointError
from .hub import HUB, SHARED_NAMES, HubFile
from .layouts import OPENMMLAB_HEAD
from .paddle import read_params
from .published import SCHEME, locate

# Training scripts derived from DeiT's and ConvNeXt's store their command line beside the weights: plain data.
HARMLESS = [argparse.Namespace]

# Where files nest their weights. Averaged ones come first, as in timm: they are what the papers report.
NESTS = ('model_ema', 'model', 'state_dict', 'module')

# Prefixes that wrappers give every key: DistributedDataParallel, torch.compile.
WRAPPERS = ('module.', '_orig_mod.')

# What is read.
KINDS = "a .pth or .safetensors file, TensorFlow's .tar.gz or .index, or Paddle's .pdparams"


def read_state_dict(source: str | Path) -> tuple[dict[str, Tensor], str]:
    """Read the weights of a published file, an OpenMMLab file or one of our own.

    Args:
        source: Path or http(s) URL of a `.safetensors` or `torch.save` file, of a TensorFlow checkpoint's `.index` or a
            `.tar.gz` with one, of Paddle's `.pdparams`; `hybrid://NAME` for a file of
            :mod:`hybrid_backbones.checkpoints.published`; `hf-hub:OWNER/NAME[@REVISION][/FILE]` for one of
            the Hugging Face hub; or a folder as :func:`hybrid_backbones.zoo.publish.publish` writes it. What is
            downloaded stays in torch.hub's folder, or in that of huggingface_hub.

    Returns:
        The tensors by key, free of wrappers' prefixes and, for an OpenMMLab file, those of its `backbone.` alone, and
        of a classifier's `head.` under :data:`OPENMMLAB_HEAD`; and the name of the entry that they were nested under,
        '' for none.

    Raises:
        CheckpointError: No such file, a damaged one, or one that holds code or no tensors.
    """
    path = local_file(str(source))
    content, nest = _unnest(_read(path))
    state = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not state:
        raise CheckpointError(f'{path} holds no weights: expected tensors by name, at the top or under {NESTS}')
    for prefix in WRAPPERS:
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    if any(key.startswith('backbone.') for key in state):
        state = {
            re.sub(r'^head\.', OPENMMLAB_HEAD, key).removeprefix('backbone.'): value
            for key, value in state.items()
            if key.startswith(('backbone.', 'head.'))
        }
    return state, nest


def local_file(source: str) -> Path:
    """Path of `source`, downloaded first where it is a URL or of the hub."""
    if source.startswith(SCHEME):
        return locate(source.removeprefix(SCHEME))
    if source.startswith(HUB):
        return HubFile.parse(source).fetch()
    if urlparse(source).scheme not in ('http', 'https'):
        path = Path(source.removeprefix('file://')).expanduser()
        return path / SHARED_NAMES[0] if path.is_dir() else path
    path = cache_folder() / _cached_name(source)
    if not path.exists():
        download(source, path)
    return path


def _cached_name(url: str) -> str:
    """The file's own name, as torch.hub has it; all of it for those that every repository of a hub uses."""
    path = urlparse(url).path.strip('/')
    name = path.rpartition('/')[2]
    return path.replace('/', '--') if name in SHARED_NAMES else name


def _read(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f'no checkpoint at {path}: expected {KINDS}')
    try:
        if path.suffix == '.safetensors':
            from safetensors.torch import load_file

            return load_file(path)
        if path.name.endswith(('.tar.gz', '.tgz')):
            return read_archive(path)
        if path.suffix == '.index':
            return read_bundle(path)
        if path.suffix == '.pdparams':
            return read_params(path)
        with weights_only(*HARMLESS):
            return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        # torch raises this for code and for damaged files; the first line of its message says which.
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f'{path} was not read: it is damaged, or holds objects that could run code when loaded ({reason}). '
            'Save it again as a plain dict of tensors.'
        ) from error
    except Exception as error:  # torch and safetensors raise RuntimeError, EOFError, OSError and their own for damage
        raise CheckpointError(f'{path} is damaged or cut short ({error}). Copy or download it again.') from error


def _unnest(content: Any) -> tuple[dict[str, Any], str]:
    nest = ''
    while isinstance(content, dict):
        inner = next((key for key in NESTS if isinstance(content.get(key), dict)), None)
        if inner is None:
            return content, nest
        content, nest = content[inner], f'{nest}.{inner}' if nest else inner
    raise CheckpointError(f'a checkpoint is a dict of tensors by name; this one is a {type(content).__name__}')
