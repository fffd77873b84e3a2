"""Write a backbone or classifier as a folder in the Hugging Face hub's layout."""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save

from .._files import written_whole
from ..backbones.factory import find_backbone
from ..checkpoints.published import SCHEME, Published, find_published
from ..checkpoints.published_models import PublishedModel
from ..engine.runs import metrics_of
from .identify import Match, convert

CARD = """---
license: {tag}
library_name: hybrid_backbones
tags: [image-feature-extraction, {backbone}]
---
# {backbone}

{kind} of hybrid_backbones; {parameters:,} parameters of the trunk.{figures}

```python
from hybrid_backbones import {function}

network = {function}({call}, checkpoint='hf-hub:OWNER/NAME')
```

Licence: {licence}. Images are RGB, normalised by the mean and deviation of `config.json`, from 0 to 255.
"""


def publish(source: str, out: str | Path, licence: str | None = None) -> str:
    """Write `model.safetensors`, `config.json` and a model card, all of them or none.

    The folder's path, or `hf-hub:OWNER/NAME` once it is uploaded, loads back to the same numbers.

    Args:
        source: As for :func:`hybrid_backbones.checkpoints.read_state_dict`; of a detector or segmentor, its backbone.
        out: A folder that does not exist.
        licence: SPDX name; None for that of the index, where `source` is `hybrid://NAME`.

    Returns:
        What was written.

    Raises:
        CheckpointError: The file cannot be read, or is of no registered network.
        FileExistsError: The folder exists.
        ValueError: No licence is given, and the index has none.
    """
    out = Path(out).expanduser()
    if out.exists():
        raise FileExistsError(f'{out} exists; give a new folder')
    row = find_published(source.removeprefix(SCHEME)) if source.startswith(SCHEME) else None
    licence = licence or (row and row.licence)
    if not licence:
        raise ValueError('give the licence of the weights, such as --licence MIT')
    state, match = convert(source)
    # Clones: a view would keep its whole storage, and safetensors refuses shared memory.
    state = {key: value.clone(memory_format=torch.contiguous_format) for key, value in state.items()}
    figures = _figures(row, source)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp('.partial', f'.{out.name}.', out.parent))
    try:
        with written_whole(folder / 'model.safetensors') as path:
            # Not by save_file, whose files only their owner can read.
            path.write_bytes(save(state, {'format': 'pt'}))
        (folder / 'config.json').write_text(json.dumps(_config(match, licence), indent=2) + '\n', encoding='utf-8')
        (folder / 'README.md').write_text(_card(match, licence, figures), encoding='utf-8')
        folder.chmod(0o755)
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return f'{match}\nwritten to {out}; upload it by: hf upload OWNER/NAME {out}'


def _figures(row: Published | PublishedModel | None, source: str) -> str:
    """A sentence of the top-1 of the index, or of what the run that wrote the checkpoint measured; '' for neither."""
    if isinstance(row, Published) and row.top1:
        return f' {row.top1} % top-1 on ImageNet-1k, as published: {row.source}.'
    if row is None and (metrics := metrics_of(source)):
        listed = ', '.join(f'{name} {value:g}' for name, value in metrics.items())
        return f' The model that it was trained in reached, on the validation data of its run: {listed}.'
    return ''


def _config(match: Match, licence: str) -> dict:
    cls, defaults = find_backbone(match.backbone)
    with torch.device('meta'):
        backbone = cls(**defaults | match.options)
    return dict(
        backbone=match.backbone,
        options=match.options,
        num_classes=match.classes,
        image_mean=backbone.image_mean,
        image_std=backbone.image_std,
        licence=licence,
    )


def _card(match: Match, licence: str, figures: str) -> str:
    options = ''.join(f', {key}={value!r}' for key, value in match.options.items())
    classes = f', num_classes={match.classes}' if match.classes else ''
    return CARD.format(
        tag=licence.lower(),
        backbone=match.backbone,
        kind=f'Classifier of {match.classes} classes' if match.classes else 'Backbone',
        parameters=match.total_parameters,
        figures=figures,
        function='create_classifier' if match.classes else 'create_backbone',
        call=f'{match.backbone!r}{classes}{options}',
        licence=licence,
    )
