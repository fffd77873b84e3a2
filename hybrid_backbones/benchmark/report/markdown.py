"""The report as Markdown, for repositories and issues."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from .answers import answers
from .grouping import Results
from .sections import Section, notice, summary
from .tables import Table

NO_ROWS = 'There are no rows yet. Run a sweep with `hybrid-backbones transfer run`, then write the report again.'


def write_markdown(
    results: Results, sections: Sequence[Section], title: str, pictures: Mapping[tuple[str, str], Path]
) -> str:
    """The whole text; `pictures`, by the anchor of a section and the title of a block, are in the same folder."""
    parts = [f'# {_escaped(title)}']
    if found := answers(results):
        parts.append('\n'.join(f'- {_escaped(answer)}' for answer in found))
    if text := notice(results):
        parts.append(f'> **{text}**')
    facts = '\n'.join(f'- {name}: {_escaped(value)}' for name, value in summary(results))
    parts.append(facts or NO_ROWS)
    for section in sections:
        if not section.on_page_only:
            parts += _section(section, pictures)
    return '\n\n'.join(parts) + '\n'


def _section(section: Section, pictures: Mapping[tuple[str, str], Path]) -> list[str]:
    parts = [f'## {section.title}', *(_escaped(note) for note in section.notes)]
    if picture := pictures.get((section.anchor, '')):
        parts.append(f'![{section.title}]({picture.name})')
    for block in section.blocks:
        picture = block.title and pictures.get((section.anchor, block.title))
        if block.title and (picture or block.table):
            parts.append(f'### {_escaped(block.title)}')
        if block.note:
            parts.append(_escaped(block.note))
        if picture:
            parts.append(f'![{_escaped(block.title)}]({picture.name})')
        if block.table:
            parts.append(_table(block.table))
    return parts


def _table(table: Table) -> str:
    lines = [_line([_escaped(column.title) for column in table.columns])]
    lines.append(_line(['---' if column.digits is None else '---:' for column in table.columns]))
    for row in table.rows:
        lines.append(_line([_escaped(column.format(cell)) for column, cell in zip(table.columns, row, strict=True)]))
    return '\n'.join(lines)


def _line(cells: Sequence[str]) -> str:
    return f'| {" | ".join(cells)} |'


def _escaped(text: str) -> str:
    """On one line, with the special characters of Markdown and HTML escaped (not underscores within words)."""
    return re.sub(r'([\\`*<>|\[\]~$]|&(?=[#\w]+;)|(?<!\w)_|_(?!\w))', r'\\\1', ' '.join(text.split()))
