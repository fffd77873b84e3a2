"""The text that `hybrid-backbones weights` prints."""

from pathlib import Path

import torch
from safetensors.torch import save

from .._files import written_whole
from ..backbones.factory import find_backbone
from ..checkpoints.errors import CheckpointError
from ..checkpoints.published import SCHEME, Family, Published, families, find_published, list_published
from ..checkpoints.published_models import PublishedModel
from ..checkpoints.reading import read_state_dict
from ..checkpoints.sources import Source
from .identify import Match, convert, match_state
from .models import describe_model, how, state_of


def table(pattern: str = '*', markdown: bool = False) -> str:
    """The index, a line per file; families without files are named where all are listed.

    Raises:
        CheckpointError: No name matches.
    """
    rows = list_published(pattern)
    if not rows:
        raise CheckpointError(f'no published file is named {pattern}; `list` without a pattern lists all')
    if markdown:
        return _markdown(rows)
    lines = [f'{"name":46}{"trained on":32}{"pixels":>7}{"top-1":>7}{"M":>8}  licence      how']
    for row in rows:
        lines.append(
            f'{row.name:46}{row.data:32}{row.size or "-":>7}{row.top1 or "-":>7}{row.parameters / 1e6:8.1f}'
            f'  {row.licence:12} {how(row)}'
        )
    if pattern == '*':
        lines += [f'{family.name}: {family.note}' for family in families() if not family.files]
    return '\n'.join(lines)


def _markdown(rows: list[Published]) -> str:
    lines = []
    for family in families():
        files = [row for row in rows if row.family == family.name]
        if files:
            lines += _markdown_family(family, files)
        elif len(rows) == len(list_published()) and not family.files:
            lines += [f'### {family.name}', '', f'No files: {family.note}.', '']
    return '\n'.join(lines).rstrip()


def _markdown_family(family: Family, files: list[Published]) -> list[str]:
    note = f' {family.note[0].upper()}{family.note[1:]}.' if family.note else ''
    page = family.source.removeprefix('https://').removeprefix('github.com/')
    lines = [
        f'### {family.name}',
        '',
        f'{family.licence}; figures of [{page}]({family.source}).{note}',
        '',
        '| name | backbone | trained on | pixels | top-1 | parameters, M | sources |',
        '|---|---|---|---|---|---|---|',
    ]
    for row in files:
        options = ''.join(f', `{key}={value!r}`' for key, value in row.options.items())
        links = [f'[{s.kind}]({row.source if s.kind == "package" else s.url})' for s in row.sources]
        lines.append(
            f'| `{row.name}` | `{row.backbone}`{options} | {row.data} | {row.size or "-"} | {row.top1 or "-"} '
            f'| {row.parameters / 1e6:.1f} | {", ".join(links)} |'
        )
    for note in dict.fromkeys(note for row in files for note in _notes(row)):
        lines += ['', f'{", ".join(f"`{row.name}`" for row in files if note in _notes(row))}: {note}.']
    return [*lines, '']


def _notes(row: Published) -> list[str]:
    images = 'images from -1 to 1 (mean = std = 127.5)' if row.symmetric_images else ''
    return [note for note in (images, row.note) if note]


def describe(name: str) -> str:
    """The index's entry of a file, and how to use it.

    Raises:
        CheckpointError: There is none of that name.
    """
    row, notes = find_published(name), {family.name: family.note for family in families()}
    if isinstance(row, PublishedModel):
        return describe_model(row)
    what = f'classifier of {row.classes} classes' if row.classes else 'trunk; the classes of the head are not published'
    unmeasured = 'not stated here' if row.classes == 1000 else 'none: not a classifier of ImageNet-1k'
    facts = {
        'architecture': f'{row.family}, {row.backbone}',
        'trained on': f'{row.data}, {row.size or "unknown"} pixels',
        'top-1': f'{row.top1} % on ImageNet-1k, as published' if row.top1 else unmeasured,
        'parameters': f'{row.parameters:,} ({what})',
        'licence': row.licence,
        'figures': row.source,
        'path': f'{row.path} ({state_of(row)})',
        'config': f'hybrid_backbones::{row.config}.py' if row.config else f'any, with --backbone {row.backbone}',
        'note': '; '.join(filter(None, (*_notes(row), notes[row.family]))),
    }
    places = [f'  {source.kind:13}{_place(source)}' for source in row.sources]
    lines = [name, *(f'  {key:13}{value}' for key, value in facts.items() if value), *places, '']
    return '\n'.join([*lines, *_usage(row.backbone, row.options, f'{SCHEME}{name}', row.classes)])


def _place(source: Source) -> str:
    names = f'names of {source.layout}' if source.layout else "the authors' names"
    return f'{source.at.removeprefix("page:")}, {names}, SHA-256 {source.sha256 or "not published"}'


def _usage(backbone: str, options: dict, checkpoint: str, classes: int | None) -> list[str]:
    """Lines of Python that load a checkpoint."""
    cls, defaults = find_backbone(backbone)
    given = ''.join(f', {key}={value!r}' for key, value in {**defaults, **options}.items())
    named = ''.join(f', {key}={value!r}' for key, value in options.items())
    lines = [
        'In a config:',
        f'  backbone=dict(type={cls.__name__!r}{given},',
        f"                init_cfg=dict(type='Pretrained', checkpoint={checkpoint!r}))",
        'Without one:',
        f'  create_backbone({backbone!r}{named}, checkpoint={checkpoint!r})',
    ]
    if classes:
        number = '' if classes == 1000 else f', num_classes={classes}'
        lines.append(f'  create_classifier({backbone!r}{number}{named}, checkpoint={checkpoint!r})')
    return lines


def check(source: str) -> str:
    """Which network a file is of, or the nearest ones, or that there is none.

    Raises:
        CheckpointError: The file cannot be read.
    """
    state, nest = read_state_dict(source)
    matches = match_state(state)
    count = sum(value.numel() for value in state.values())
    lines = [f'{source}{f"[{nest}]" if nest else ""}: {len(state)} tensors, {count:,} numbers', '']
    if not matches:
        return '\n'.join([*lines, 'No registered network is like it. Its first keys: ' + ', '.join(list(state)[:5])])
    if not matches[0].complete:
        return '\n'.join([*lines, 'No registered network is that of the file. Nearest:', *map(str, matches)])
    match = matches[0]
    lines += [str(match), '']
    if match.fused:
        return '\n'.join(
            [*lines, 'Load it with load_state_dict into such a network after its fuse(). Not for training.']
        )
    alike = [row.name for row in list_published() if (row.backbone, row.options) == (match.backbone, match.options)]
    if alike:
        lines += [f'Published files of this form: {", ".join(alike)}', '']
    return '\n'.join([*lines, *_usage(match.backbone, match.options, str(source), match.classes)])


def save_converted(source: str, out: str | Path, force: bool = False) -> str:
    """Write a published file as a plain state dict under the names used here, whole or not at all.

    Args:
        source: As for :func:`hybrid_backbones.checkpoints.read_state_dict`.
        out: A `.safetensors` or `.pth` file.
        force: Write over a file that is there.

    Returns:
        What was written.

    Raises:
        ValueError: Another kind of file is asked for.
        FileExistsError: It is there, and `force` is not given.
        CheckpointError: The file cannot be read, or is of no registered network.
    """
    out = Path(out).expanduser()
    if out.suffix not in ('.safetensors', '.pth'):
        raise ValueError(f'{out} is neither a .safetensors nor a .pth file')
    if out.exists() and not force:
        raise FileExistsError(f'{out} is there; --force writes over it')
    state, match = convert(source)
    with written_whole(out) as temporary:
        _write(state, match, temporary)
    return f'{match}\nwritten to {out}: {len(state)} tensors'


def _write(state: dict[str, torch.Tensor], match: Match, path: Path) -> None:
    # Clones: a view would keep its whole storage, and safetensors refuses shared memory.
    state = {key: value.clone(memory_format=torch.contiguous_format) for key, value in state.items()}
    if path.suffix == '.safetensors':
        path.write_bytes(save(state, {'backbone': match.backbone, 'options': repr(match.options)}))
    else:
        torch.save(state, path)
