"""What the report says, section by section: words, tables and plots, for the page and for Markdown alike."""

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ..rows import Row, describe
from . import figures, tables
from .figures import Plot
from .grouping import AXES, Candidate, Group, Results, Setting, backbone_of, candidate_of, setting_of
from .statistics import FEWEST_FOR_CORRELATION, FEWEST_FOR_Z, rank_correlation, z_scores
from .styles import family_styles
from .tables import Column, Table, metric_title

ONLY_MEASURED = (
    'Only rows that were measured here and finished are ranked; quoted and converted ones are shown in grey.'
)


@dataclass
class Block:
    """Plots, and the table that says the same; the page folds it away beneath them."""

    title: str = ''
    plots: list[Plot] = field(default_factory=list)
    table: Table | None = None


@dataclass
class Section:
    """A heading and what is under it; `on_page_only` for what the CSV says better than Markdown."""

    anchor: str
    title: str
    notes: list[str]
    blocks: list[Block] = field(default_factory=list)
    on_page_only: bool = False

    def drawn_families(self) -> set[str]:
        """Families that its plots show."""
        return {family for block in self.blocks for plot in block.plots for family in plot.families}


def notice(results: Results) -> str | None:
    """What is to be known before any number is read."""
    small = sorted(results.tiers - {'full'})
    if not small:
        return None
    return (
        f'Scores of tier {" and ".join(small)} come from mini-sets and short schedules. They show that training and '
        'evaluation work; they rank nothing in general.'
    )


def summary(results: Results) -> list[tuple[str, str]]:
    """Facts for the top: what, how many."""
    if not results.rows:
        return []
    return [
        ('Runs', str(len(results.runs))),
        ('Profiles of cost and speed', str(len(results.profiles))),
        ('Backbones', str(len({row['identity']['backbone'] for row in results.rows}))),
        ('Settings', str(len({setting_of(row) for row in results.runs}))),
        ('Origin of the rows', _counts(row['origin'] for row in results.rows)),
        ('State of the rows', _counts(row['state'] for row in results.rows)),
        ('Latest row', max(row['time'] for row in results.rows).replace('T', ' ').replace('Z', ' UTC')),
    ]


def _counts(values: Iterable[str]) -> str:
    return ', '.join(f'{n} {value}' for value, n in Counter(values).most_common())


def sections(results: Results) -> list[Section]:
    """All sections that these rows give rise to."""
    if not results.rows:
        return []
    makers = (_runs, _settings, _z_scores, _correlations, _frozen, _published, _curves, _growth, _profiles, _failures)
    return [section for make in (*makers, _origins) if (section := make(results))]


def _runs(results: Results) -> Section | None:
    if not results.runs:
        return None
    note = 'Mean, standard deviation and rank are those of a backbone with its weights in a setting, over its seeds.'
    return Section('runs', 'Runs', [ONLY_MEASURED, note], [Block(table=tables.results_table(results))], True)


def _settings(results: Results) -> Section | None:
    settings = sorted({setting_of(row) for row in results.runs if row.get('metrics')})
    if not settings:
        return None
    styles = family_styles(results.families)
    blocks = []
    for setting in settings:
        groups = results.groups.get(setting, [])
        plots = [plot for axis in AXES if (plot := figures.pareto(groups, axis, styles))]
        blocks.append(Block(setting.label, plots, tables.setting_table(results, setting, groups)))
    notes = [
        'Dotted: the Pareto front, backbones that no other beats in score without costing more. Costs are those of the '
        'whole model; where machines or input sizes differ, each has a front of its own.',
        ONLY_MEASURED,
    ]
    return Section('settings', 'Scores against cost', notes, blocks)


def _z_scores(results: Results) -> Section | None:
    if not results.groups:
        return None
    notes = [
        'How far a backbone is above the mean of the backbones in a setting, in their (population) standard '
        'deviations, and the mean over the settings it was measured in (as in Battle of the Backbones). Frozen and '
        'trained backbones are settings apart.'
    ]
    blocks = []
    for tier in ('full', 'proxy', 'smoke'):
        of_tier = {s: results.scores(s) for s in results.groups if s.tier == tier}
        if few := [s.label for s, scores in of_tier.items() if len(scores) < FEWEST_FOR_Z]:
            notes.append(f'Left out, with fewer than {FEWEST_FOR_Z} backbones: {"; ".join(few)}.')
        z = {s: found for s, scores in of_tier.items() if (found := z_scores(scores))}
        if z:
            blocks.append(_z_block(results, f'Tier {tier}', z))
    return Section('z-scores', 'z-scores', notes, blocks)


def _z_block(results: Results, title: str, z: dict[Setting, dict[Candidate, float]]) -> Block:
    by_candidate = {c: {s.label: z[s][c] for s in z if c in z[s]} for c in dict.fromkeys(c for s in z for c in z[s])}
    rows = [(results.labels[c], c.family, statistics.fmean(found.values()), found) for c, found in by_candidate.items()]
    rows.sort(key=lambda row: -row[2])
    columns = [Column('backbone'), Column('mean z', 2, signed=True), Column('settings', 0)]
    columns += [Column(s.label, 2, signed=True) for s in z]
    cells = [[label, mean, len(found), *(found.get(s.label) for s in z)] for label, _, mean, found in rows]
    plot = figures.z_scores(rows, family_styles(results.families))
    return Block(title, [plot], Table(f'z-scores, tier {title.split()[-1]}', columns, cells))


def _correlations(results: Results) -> Section | None:
    settings = list(results.groups)
    if len(settings) < 2:
        return None
    note = (
        "Spearman's rank correlation over the backbones that two settings have in common, whose number is in brackets; "
        f'not given for fewer than {FEWEST_FOR_CORRELATION}.'
    )
    columns = [Column('setting'), *(Column(str(i + 1)) for i in range(len(settings)))]
    rows: list[list[tables.Cell]] = []
    for i, a in enumerate(settings):
        found = [rank_correlation(results.scores(a), results.scores(b)) for b in settings[:i]]
        texts = [f'{"–" if rho is None else f"{rho:.2f}"} ({n})'.replace('-', '−') for rho, n in found]
        rows.append([f'{i + 1}. {a.label}', *texts, '1', *[''] * (len(settings) - i - 1)])
    table = Table('Rank correlation between settings', columns, rows, sortable=False)
    return Section('correlation', 'Rank correlation between settings', [note], [Block(table=table)])


def _frozen(results: Results) -> Section | None:
    pairs = list(_frozen_pairs(results))
    if not pairs:
        return None
    points = [(f'{f.label}, {t.setting.label}', f.candidate.family, f.mean, t.mean) for f, t in pairs]
    columns = [Column('backbone'), Column('setting'), Column('metric')]
    columns += [Column('frozen, %', 2), Column('trained, %', 2), Column('gain, points', 2, signed=True)]
    rows = [
        [f.label, t.setting.label, metric_title(f.metric), f.mean, t.mean, t.mean - f.mean]
        for f, t in sorted(pairs, key=lambda pair: (pair[1].setting, -pair[1].mean))
    ]
    plot = figures.agreement(points, 'frozen', 'trained', family_styles(results.families))
    note = 'The same backbone, weights and setting, with the backbone frozen and trained along.'
    return Section('frozen', 'Frozen against trained', [note], [Block('', [plot], Table('Frozen', columns, rows))])


def _frozen_pairs(results: Results) -> Iterator[tuple[Group, Group]]:
    for setting, groups in results.groups.items():
        trained = {group.candidate: group for group in results.groups.get(setting._replace(frozen=False), [])}
        for group in groups:
            other = trained.get(group.candidate) if setting.frozen else None
            if other and other.metric == group.metric:
                yield group, other


def _published(results: Results) -> Section | None:
    rows = [row for group in _all_groups(results) for row in group.rows if row.get('published')]
    if not rows:
        return None
    columns = [Column('backbone'), Column('setting'), Column('seed', 0), Column('metric'), Column('measured, %', 2)]
    columns += [Column('published, %', 2), Column('difference, points', 2, signed=True)]
    columns += [Column('published schedule'), Column('source'), Column('trust')]
    cells, points = [], []
    for row in rows:
        published, setting, label = row['published'], setting_of(row), results.labels[candidate_of(row)]
        for metric, difference in published['difference'].items():
            values = row['metrics'].get(metric), published['metrics'].get(metric)
            cells.append([label, setting.label, row['identity']['seed'], metric_title(metric), *values, difference])
            cells[-1] += [published[key] for key in ('schedule', 'source', 'trust')]
            if metric == results.metrics[setting] and None not in values:
                points.append((f'{label}, {setting.label}', candidate_of(row).family, values[1], values[0]))
    plots = [figures.agreement(points, 'published', 'measured', family_styles(results.families))] if points else []
    note = 'On the dotted line, what was measured here equals what is published; schedules may differ (see the table).'
    return Section(
        'published', 'Measured against published', [note], [Block('', plots, Table('Published', columns, cells))]
    )


def _curves(results: Results) -> Section | None:
    styles = family_styles(results.families)
    blocks = []
    runs = [row for row in results.runs if row['origin'] == 'measured' and any((row.get('curves') or {}).values())]
    for setting in sorted({setting_of(row) for row in runs}):
        here = [row for row in runs if setting_of(row) == setting]
        plots = []
        for name in curve_names(here, results.metrics.get(setting)):
            drawn = [(_run_label(results, row), row) for row in here if row['curves'].get(name)]
            plots.append(figures.curves(name, drawn, styles))
        blocks.append(Block(setting.label, plots))
    note = 'Lines are dashed for runs that did not finish. The numbers are in rows.jsonl.'
    return Section('curves', 'Curves', [note], blocks) if blocks else None


def curve_names(rows: Sequence[Row], metric: str | None) -> list[str]:
    """The loss and the metric that ranks; where rows have neither, whatever they have."""
    present = list(dict.fromkeys(name for row in rows for name, points in row['curves'].items() if points))
    return [name for name in ('loss', metric) if name in present] or present


def _run_label(results: Results, row: Row) -> str:
    return f'{results.labels[candidate_of(row)]}, seed {row["identity"]["seed"]}'


def growth_lines(results: Results) -> dict[str, list[tuple[str, list[float], list[float]]]]:
    """Title of a plot -> (backbone, pixels, values), for backbones that were profiled at two sizes or more.

    Times and memories are those of one batch size, machine and precision: of the one with most rows.
    """
    rows = [row for row in results.profiles if row['origin'] == 'measured' and row['state'] == 'finished']
    places = [_place(row) for row in rows]
    common = max(places, key=places.count, default=None)
    lines: dict[str, list[tuple[str, list[float], list[float]]]] = {}
    for axis in AXES[:4]:
        for name in dict.fromkeys(backbone_of(row) for row in rows):
            mine = [row for row in rows if backbone_of(row) == name and _place(row) == common]
            points = {_pixels(row): value for row in mine if (value := axis.read(row)) is not None}
            if len(points) > 1:
                lines.setdefault(axis.title, []).append((name, sorted(points), [points[x] for x in sorted(points)]))
    return lines


def _place(row: Row) -> tuple[object, ...]:
    environment = row['environment']
    return row['identity']['batch_size'], *(environment[key] for key in ('device', 'precision', 'threads'))


def _pixels(row: Row) -> float:
    height, width = row['identity']['size']
    return height * width


def _growth(results: Results) -> Section | None:
    lines = growth_lines(results)
    if not lines:
        return None
    plots = [figures.growth(title, found, family_styles(results.families)) for title, found in lines.items()]
    note = (
        'Backbones alone. Both axes are logarithmic: a slope of 1 is growth with the number of pixels, 2 with its '
        'square, as of attention from everywhere to everywhere. Exponents are fitted over all sizes. Pictures '
        'without hover show the smallest of each family where there are many.'
    )
    block = Block('', plots, tables.growth_table(lines))
    return Section('growth', 'Growth with resolution', [note], [block])


def _profiles(results: Results) -> Section | None:
    if not results.profiles:
        return None
    note = 'Backbones alone, in inference but for the memory in training. Latency is the median, of a batch.'
    block = Block(table=tables.profile_table(results.profiles))
    return Section('profiles', 'Cost and speed of backbones', [note], [block])


def _failures(results: Results) -> Section:
    rows = [row for row in results.rows if row['state'] != 'finished']
    if not rows:
        return Section('failures', 'Failures', ['Every row is of a run that finished.'])
    return Section('failures', 'Failures', [], [Block(table=tables.failure_table(rows, describe))])


def _origins(results: Results) -> Section:
    note = 'Where the rows are from. A + after the code version means that files were changed.'
    return Section('origins', 'How the rows came about', [note], [Block(table=tables.origin_table(results.rows))])


def _all_groups(results: Results) -> Iterator[Group]:
    for groups in results.groups.values():
        yield from groups
