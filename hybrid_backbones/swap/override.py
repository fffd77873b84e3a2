"""A short config file that inherits from another and says only what differs."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Any

from .._files import write_whole

WIDTH = 120


def difference(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """What MMEngine's inheritance merges into `old` to make `new` of it.

    Keys that `new` lacks are dropped by writing the dict around them with `_delete_=True`; at the top `new` has None.
    """
    return {
        key: _merged(old[key], value) if key in old else without_scope(value)
        for key, value in new.items()
        if key != '_scope_' and (key not in old or without_scope(old[key]) != without_scope(value))
    }


def _merged(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() - {'_scope_'} <= new.keys():
        return difference(old, new)
    return {'_delete_': True} | without_scope(new) if isinstance(new, dict) else without_scope(new)


def without_scope(node: Any) -> Any:
    """Plain containers without the `_scope_` that MMEngine writes into configs inherited from another package."""
    if isinstance(node, dict):
        return {key: without_scope(value) for key, value in node.items() if key != '_scope_'}
    if isinstance(node, (list, tuple)):
        return type(node)(without_scope(value) for value in node)
    return node


def write_override(path: Path, base: str, comments: Sequence[str], changes: dict[str, Any]) -> None:
    """Write `changes` over the config `base`, a path relative to `path` or `package::path`, under `comments`."""
    wrap = partial(fill, width=WIDTH, initial_indent='# ', subsequent_indent='#   ')
    lines = [*map(wrap, comments), '', f'_base_ = {base!r}', '']
    lines += [f'{key} = {to_code(value, column=len(key) + 3)}' for key, value in changes.items()]
    write_whole(path, '\n'.join(lines) + '\n')


def to_code(value: Any, indent: int = 0, column: int = 0) -> str:
    """Python source of nested dicts and lists as OpenMMLab's configs write them.

    Args:
        indent: Of the line that the value begins on.
        column: Where on that line it begins.
    """
    flat = _flat(value)
    if indent + column + len(flat) < WIDTH or not isinstance(value, (dict, list, tuple)) or not value:
        return flat
    inner = indent + 4
    pad = ' ' * inner
    if isinstance(value, dict):
        named = _is_named(value)
        heads = [f'{key}=' if named else f'{key!r}: ' for key in value]
        items = [pad + head + to_code(v, inner, len(head)) + ',' for head, v in zip(heads, value.values(), strict=True)]
        opening, closing = ('dict(', ')') if named else ('{', '}')
    else:
        items = [pad + to_code(v, inner) + ',' for v in value]
        opening, closing = '[]' if isinstance(value, list) else '()'
    return '\n'.join([opening, *items, ' ' * indent + closing])


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        if _is_named(value):
            return f'dict({", ".join(f"{key}={_flat(v)}" for key, v in value.items())})'
        return f'{{{", ".join(f"{key!r}: {_flat(v)}" for key, v in value.items())}}}'
    if isinstance(value, list):
        return f'[{", ".join(map(_flat, value))}]'
    if isinstance(value, tuple):
        return f'({", ".join(map(_flat, value))}{"," if len(value) == 1 else ""})'
    return repr(value)


def _is_named(value: dict) -> bool:
    return all(isinstance(key, str) and key.isidentifier() for key in value)
