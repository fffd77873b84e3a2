"""The report's tables, as columns and plain values, which page.py and markdown.py format."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ...profiling.growth import growth_exponent
from ..rows import Row, framework_of
from .comparison import Comparison
from .grouping import (
    AXES,
    MAIN_METRICS,
    Axis,
    Group,
    Results,
    Setting,
    backbone_of,
    candidate_of,
    family_of,
    main_metric,
    number,
    setting_of,
)
from .statistics import pareto_front

Cell = str | int | float | None
# Metrics in the table of runs; the CSV file has all.
SHOWN = (*MAIN_METRICS, 'mIoU_ms')


@dataclass(frozen=True)
class Column:
    """A column's heading, with its unit, and how its cells are shown.

    Attributes:
        digits: Decimal places; None: a column of text.
        filtered: The page offers a filter with the column's values.
    """

    title: str
    digits: int | None = None
    filtered: bool = False
    signed: bool = False

    def format(self, cell: Cell) -> str:
        """The text of a cell; an en dash if it is unknown."""
        if cell is None:
            return '–'
        if self.digits is None or isinstance(cell, str):
            return str(cell)
        # Adding 0.0 turns -0.0 into 0.0.
        text = f'{round(cell, self.digits) + 0.0:{"+" if self.signed else ""}.{self.digits}f}'
        return text.replace('-', '−')


@dataclass
class Table:
    """Columns and rows of cells; rows in `unranked`, by index, are shown in grey."""

    caption: str
    columns: list[Column]
    rows: list[list[Cell]]
    unranked: set[int] = field(default_factory=set)
    sortable: bool = True

    def without_empty_columns(self) -> 'Table':
        """The table without columns that are empty in every row."""
        kept = [i for i in range(len(self.columns)) if any(row[i] not in (None, '') for row in self.rows)]
        rows = [[row[i] for i in kept] for row in self.rows]
        return replace(self, columns=[self.columns[i] for i in kept], rows=rows)


_COST_COLUMNS: list[tuple[Column, Callable[[Row], Cell]]] = [
    (Column('params, M', 1), lambda row: number(row, 'cost', 'parameters', scale=1e-6)),
    (Column('MACs, G', 1), lambda row: number(row, 'cost', 'macs', scale=1e-9)),
    (Column('latency, ms', 1), lambda row: number(row, 'speed', 'median_s', scale=1e3)),
    (Column('images/s', 2), lambda row: number(row, 'speed', 'images_per_s')),
    (Column('memory, MiB', 0), lambda row: number(row, 'memory', 'inference_mib')),
    (Column('memory in training, MiB', 0), lambda row: number(row, 'memory', 'training_mib')),
]


def results_table(results: Results) -> Table:
    """Every run with its metrics, the mean over seeds, and its costs."""
    groups = {
        (group.setting, group.candidate): (group, rank)
        for found in results.groups.values()
        for group, rank in Comparison(found).ranked()
    }
    shown = [name for name in SHOWN if any(name in (row.get('metrics') or {}) for row in results.runs)]
    columns = [
        Column('backbone'),
        *(Column(title, filtered=True) for title in ('framework', 'dataset', 'schedule', 'backbone is', 'origin')),
        *(Column(metric_title(name), 1) for name in shown),
        Column('mean', 2),
        Column('± std', 2),
        Column('seeds', 0),
        Column('rank', 0),
        *(column for column, _ in _COST_COLUMNS),
        *(Column(title, filtered=True) for title in ('state', 'family', 'tier')),
        Column('weights'),
        Column('seed', 0),
        Column('time, min', 1),
    ]
    rows, unranked = [], set()
    for i, row in enumerate(results.runs):
        identity, backbone = row['identity'], backbone_of(row)
        group, rank = groups.get((setting_of(row), candidate_of(row)), (None, None))
        if group is None or row not in group.rows:
            group = None
            unranked.add(i)
        rows.append(
            [
                backbone,
                *(framework_of(identity), identity['dataset'], identity['schedule']),
                'frozen' if identity['frozen'] else 'trained',
                row['origin'],
                *((row.get('metrics') or {}).get(name) for name in shown),
                *((group.mean, group.deviation, len(group.rows), rank) if group else (None,) * 4),
                *(read(row) for _, read in _COST_COLUMNS),
                row['state'],
                family_of(backbone),
                identity['tier'],
                weights_cell(row),
                identity['seed'],
                number(row, 'seconds', scale=1 / 60),
            ]
        )
    return Table('Runs', columns, rows, unranked).without_empty_columns()


def weights_cell(row: Row) -> str:
    """File of the weights, and the fraction of the backbone that it filled unless that is all of it."""
    weights = row.get('weights')
    if not weights:
        return 'from scratch' if row['identity']['weights_sha256'] is None else 'pretrained'
    return weights['file'] if weights['loaded'] == 1 else f'{weights["file"]} ({weights["loaded"]:.0%} loaded)'


def metric_title(metric: str) -> str:
    """`mask AP`, `mIoU`."""
    return (
        metric.replace('_ms', ' (multi-scale)').replace('_', ' ', 1) if 'AP' not in metric else metric.replace('_', ' ')
    )


def setting_table(results: Results, setting: Setting, compared: Comparison) -> Table:
    """The ranking of a setting with costs and Pareto fronts, followed by its converted and quoted rows."""
    groups = compared.groups
    others = [row for row in results.runs if row['origin'] != 'measured' and setting_of(row) == setting]
    metric = groups[0].metric if groups else main_metric(others)
    others = sorted(
        (row for row in others if metric in (row.get('metrics') or {})), key=lambda row: -row['metrics'][metric]
    )
    on: dict[str, list[str]] = {group.label: [] for group in groups}
    for axis in AXES:
        for group in (group for front in pareto_fronts(groups, axis) for group in front):
            on[group.label].append(axis.title.split(',')[0])
    columns = [Column('rank', 0), Column('backbone'), Column('origin')]
    columns += [Column(f'{metric_title(metric)}, %' if metric else 'score', 2), Column('± std', 2), Column('± 95 %', 2)]
    columns += [Column('95 % over images'), Column('behind the best, points'), Column('seeds', 0)]
    columns += [*(Column(axis.title, 1) for axis in AXES), Column('on the Pareto front of')]
    rows: list[list[Cell]] = []
    for group, rank in compared.ranked():
        score: list[Cell] = [group.mean, group.deviation, group.interval]
        score += [compared.limits(group), compared.behind_best(group), len(group.rows)]
        costs = [group.cost(axis) for axis in AXES]
        rows.append([rank, group.label, 'measured', *score, *costs, ', '.join(on[group.label]) or None])
    for row in others:
        costs = [axis.read(row) for axis in AXES]
        rows.append([None, backbone_of(row), row['origin'], row['metrics'][metric], *(None,) * 5, *costs, None])
    return Table(setting.label, columns, rows, set(range(len(groups), len(rows)))).without_empty_columns()


def pareto_fronts(groups: Sequence[Group], axis: Axis) -> list[list[Group]]:
    """A Pareto front for every set of groups whose costs were measured under the same conditions."""
    known = [group for group in groups if group.cost(axis) is not None]
    fronts = []
    for conditions in dict.fromkeys(group.conditions(axis) for group in known):
        members = [group for group in known if group.conditions(axis) == conditions]
        fronts.append([members[i] for i in pareto_front([(g.cost(axis), g.mean) for g in members])])
    return fronts


def spans_decade(costs: Sequence[float]) -> bool:
    """Whether costs span more than a factor of ten, so that their axis is logarithmic."""
    return min(costs) > 0 and max(costs) > 10 * min(costs)


def profile_table(profiles: Sequence[Row]) -> Table:
    """Cost, speed and memory of backbones alone, at each size."""
    columns = [
        Column('backbone'),
        Column('family', filtered=True),
        Column('height×width, px', filtered=True),
        Column('batch', 0, filtered=True),
        *(column for column, _ in _COST_COLUMNS),
        Column('textbook MACs, G', 1),
        Column('activations, M', 1),
        Column('p10, ms', 1),
        Column('p90, ms', 1),
        Column('of peak, %', 1),
        Column('peak by'),
        Column('device', filtered=True),
        Column('precision', filtered=True),
        Column('origin', filtered=True),
        Column('state', filtered=True),
    ]
    rows = [
        [
            backbone_of(row),
            family_of(row['identity']['backbone']),
            size_text(row),
            row['identity']['batch_size'],
            *(read(row) for _, read in _COST_COLUMNS),
            number(row, 'cost', 'textbook_macs', scale=1e-9),
            number(row, 'cost', 'activations', scale=1e-6),
            number(row, 'speed', 'p10_s', scale=1e3),
            number(row, 'speed', 'p90_s', scale=1e3),
            number(row, 'speed', 'peak_fraction', scale=100),
            _peak_product(row),
            row['environment']['device'],
            row['environment']['precision'],
            row['origin'],
            row['state'],
        ]
        for row in profiles
    ]
    unranked = {i for i, row in enumerate(profiles) if row['origin'] != 'measured' or row['state'] != 'finished'}
    return Table('Cost and speed of backbones', columns, rows, unranked).without_empty_columns()


def _peak_product(row: Row) -> str | None:
    """What multiplies matrices at the machine's peak; rows that do not say it are shares of PyTorch's own rate."""
    speed = row.get('speed') or {}
    return (speed.get('peak_product') or 'torch.mm') if speed.get('peak_fraction') else None


def size_text(row: Row) -> str:
    """Height and width, as `800×1333`."""
    height, width = row['identity']['size']
    return f'{height}×{width}'


def growth_table(lines: dict[str, list[tuple[str, list[float], list[float]]]]) -> Table:
    """Exponents of growth with the number of pixels; `lines` maps a plot's title to (backbone, pixels, values)."""
    names = list(dict.fromkeys(name for found in lines.values() for name, _, _ in found))
    exponents = {title: {n: growth_exponent(x, y) for n, x, y in found} for title, found in lines.items()}
    columns = [Column('backbone'), *(Column(f'exponent of {title.split(",")[0]}', 2) for title in lines)]
    return Table(
        'Growth with the number of pixels', columns, [[n, *(e.get(n) for e in exponents.values())] for n in names]
    )


def failure_table(rows: Sequence[Row], describe: Callable[[Row], str]) -> Table:
    """Jobs that did not finish, with the reason."""
    columns = [Column('run'), Column('state'), Column('reason'), Column('ended (UTC)')]
    return Table('Not finished', columns, [[describe(row), row['state'], row['reason'], row['time']] for row in rows])


def origin_table(rows: Sequence[Row]) -> Table:
    """Every environment and version of the code, with its number of rows."""
    counts: Counter[tuple[Cell, ...]] = Counter()
    for row in rows:
        environment = row['environment']
        versions = ', '.join(f'{name} {version}' for name, version in sorted(environment['versions'].items()))
        key = (
            row['origin'],
            environment['device'],
            environment['precision'],
            environment['threads'],
            environment['operators'],
            versions,
            row['identity']['commit'],
        )
        counts[key] += 1
    names = ('origin', 'device', 'precision', 'threads', 'operators', 'versions', 'code')
    columns = [*(Column(name, 0 if name == 'threads' else None) for name in names), Column('rows', 0)]
    return Table('Environments', columns, [[*key, count] for key, count in counts.items()])
