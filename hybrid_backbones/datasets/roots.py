"""Where the data of a config are, and how to point it elsewhere."""

from collections.abc import Callable
from typing import Any

from mmengine.config import Config

SPLITS = ('train', 'val', 'test')


def dataloaders(cfg: Config) -> dict[str, dict]:
    """The config's data loaders by split."""
    return {split: cfg[f'{split}_dataloader'] for split in SPLITS if cfg.get(f'{split}_dataloader')}


def walk(node: Any, visit: Callable[[dict], None]) -> None:
    """Call `visit` on every dict of a nested config, outermost first."""
    if isinstance(node, dict):
        visit(node)
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            walk(child, visit)


def data_roots(cfg: Config) -> list[str]:
    """Every `data_root` that the config's datasets name, without trailing slash."""
    roots = set()
    for loader in dataloaders(cfg).values():
        walk(loader, lambda node: roots.add(node['data_root'].rstrip('/')) if node.get('data_root') else None)
    return sorted(roots)


def set_data_root(cfg: Config, root: str) -> None:
    """Point datasets, evaluators and whatever else names a path below the config's data root to `root`.

    Raises:
        ValueError: The config reads from several roots, or from none.
    """
    old = data_roots(cfg)
    if len(old) != 1:
        raise ValueError(
            f'--data-root needs a config with one data root, this one has {len(old)}: {", ".join(old) or "none"}; '
            f'use --cfg-options train_dataloader.dataset.data_root=... instead'
        )
    for key in [f'{split}_{part}' for split in SPLITS for part in ('dataloader', 'evaluator')] + ['data_root']:
        if cfg.get(key) is not None:
            cfg[key] = _moved(cfg[key], old[0], str(root).rstrip('/'))


def _moved(node: Any, old: str, new: str) -> Any:
    if isinstance(node, dict):
        return {key: _moved(value, old, new) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(_moved(value, old, new) for value in node)
    if isinstance(node, str) and (node == old or node.startswith(old + '/')):
        return new + node[len(old) :]
    return node
