"""The text that `hybrid-backbones weights` prints of detectors and segmentors, and of where any file is."""

from ..checkpoints.errors import CheckpointError
from ..checkpoints.published_models import PublishedModel, list_models
from ..checkpoints.sources import PublishedFile


def models_table(pattern: str = '*') -> str:
    """Published detectors and segmentors, a line per file.

    Raises:
        CheckpointError: No name matches.
    """
    rows = list_models(pattern)
    if not rows:
        raise CheckpointError(
            f'no published detector or segmentor is named {pattern}; without a pattern all are listed'
        )
    lines = [f'{"name":46}{"config":40}{"pretraining":24}{"schedule":>8}  {"figures":28}{"SHA-256":10}how']
    for row in rows:
        sha256 = row.sources[0].sha256[:8] or '-'
        lines.append(
            f'{row.name:46}{row.config:40}{row.pretraining:24}{row.schedule:>8}  {figures(row):28}{sha256:10}{how(row)}'
        )
    return '\n'.join(lines)


def figures(row: PublishedModel) -> str:
    """`box AP 50.4, mask AP 43.7`."""
    return ', '.join(f'{metric.replace("_", " ")} {value}' for metric, value in row.metrics.items())


def describe_model(row: PublishedModel) -> str:
    """The index's entry of a detector or segmentor, and how to use it."""
    facts = {
        'architecture': f'{row.family}, {row.backbone}',
        'trained': f'{row.schedule}, backbone pretrained on {row.pretraining}',
        'figures': f'{figures(row)}, as published: {row.source}',
        'licence': row.licence,
        'path': f'{row.path} ({state_of(row)})',
        'note': row.note,
    }
    places = [f'  {s.kind:13}{s.at.removeprefix("page:")}, SHA-256 {s.sha256 or "not published"}' for s in row.sources]
    lines = [row.name, *(f'  {key:13}{value}' for key, value in facts.items() if value), *places, '']
    return '\n'.join(
        [*lines, 'To evaluate it:', f'  {row.command}', 'To train from it:', f"  load_from = 'hybrid://{row.name}'"]
    )


def how(row: PublishedFile) -> str:
    """Where the file is, or the kinds of its sources in the order in which they are tried."""
    found = row.find()
    if found:
        return 'installed' if found[1] == found[0].installed else 'in the cache'
    return ', '.join(dict.fromkeys(source.kind for source in row.sources))


def state_of(row: PublishedFile) -> str:
    """Whether the file is on this machine, and if not how it gets there."""
    if row.find():
        return 'there'
    return 'downloaded on first use' if row.downloadable else 'to be put there by hand'
