"""The cost, speed and memory of runs, which are measured once per model and stored in the rows of profiles."""

from collections.abc import Hashable, Sequence

from .rows import Row, digest

PARTS = ('cost', 'backbone_cost', 'speed', 'memory')


def with_costs(rows: Sequence[Row]) -> list[Row]:
    """Rows in which measured runs have the cost, speed and memory of their model's finished profile.

    A run keeps what it has itself; a run without a profile stays as it is. Where speed or memory come from a profile,
    `profiled_in` is the environment in which they were measured.
    """
    profiles = {
        _model_key(row): row
        for row in rows
        if row['record'] == 'profile' and row['origin'] == 'measured' and row['state'] == 'finished'
    }
    return [_joined(row, profiles.get(_model_key(row))) if row['record'] == 'run' else row for row in rows]


def _model_key(row: Row) -> Hashable:
    """What a run and the profile of its model have in common."""
    identity = row['identity']
    model = {key: identity[key] for key in ('backbone', 'options', 'framework', 'config_sha256')}
    return digest([model, identity.get('engine'), identity.get('precision') or row['environment']['precision']])


def _joined(run: Row, profile: Row | None) -> Row:
    if profile is None or run['origin'] != 'measured':
        return run
    added = {key: profile[key] for key in PARTS if not run.get(key) and profile.get(key)}
    if added.keys() & {'speed', 'memory'}:
        added['profiled_in'] = profile['environment']
    return run | added
