"""The sections of a report: notes, tables and plots, for the page and for Markdown."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from ..rows import Row, describe
from . import figures, tables
from .comparison import Comparison, noise_floor
from .figures import Plot
from .grouping import AXES, Group, Results, backbone_of, candidate_of, setting_of
from .statistics import MIN_FOR_CORRELATION, MIN_FOR_Z, rank_correlations, z_scores
from .styles import family_styles
from .tables import Column, Table, metric_title

ONLY_MEASURED = 'Only measured, finished rows are ranked; quoted and converted ones are shown in grey.'


@dataclass
class Block:
    """A note, plots, and a table of the same numbers, which the page collapses beneath them."""

    title: str = ''
    note: str = ''
    plots: list[Plot] = field(default_factory=list)
    table: Table | None = None


@dataclass
class Section:
    """A heading with notes and blocks; Markdown leaves out sections `on_page_only`, which the CSV file contains."""

    anchor: str
    title: str
    notes: list[str]
    blocks: list[Block] = field(default_factory=list)
    on_page_only: bool = False

    def drawn_families(self) -> set[str]:
        """The families in its plots."""
        return {family for block in self.blocks for plot in block.plots for family in plot.families}


def notice(results: Results) -> str | None:
    """A warning about the scores of small tiers."""
    small = sorted(results.tiers - {'full'})
    if not small:
        return None
    return (
        f'Scores of tier {" and ".join(small)} come from small subsets and short schedules. They show that training '
        'and evaluation work; they are no general ranking of backbones.'
    )


def summary(results: Results) -> list[tuple[str, str]]:
    """Names and values for the top of the report."""
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
    """All sections for which these rows have data."""
    if not results.rows:
        return []
    makers = (_runs, _settings, _z_scores, _correlations, _frozen, _published, _curves, _growth, _profiles, _failures)
    return [section for make in (*makers, _origins) if (section := make(results))]


def _runs(results: Results) -> Section | None:
    if not results.runs:
        return None
    note = 'Mean, standard deviation and rank are over the seeds of a backbone, with its weights, in a setting.'
    return Section('runs', 'Runs', [ONLY_MEASURED, note], [Block(table=tables.results_table(results))], True)


def _settings(results: Results) -> Section | None:
    settings = sorted({setting_of(row) for row in results.drawn_runs if row.get('metrics')})
    if not settings:
        return None
    styles = family_styles(results.families)
    blocks = []
    for setting in settings:
        groups = results.groups.get(setting, [])
        plots = [plot for axis in AXES if (plot := figures.pareto(groups, axis, styles))]
        compared = Comparison(groups)
        blocks.append(
            Block(setting.label, noise_floor(compared), plots, tables.setting_table(results, setting, compared))
        )
    notes = [
        'Dotted: the Pareto front, the backbones that no other surpasses in score at the same or lower cost. Costs are '
        'those of the whole model; each machine and input size has its own front. ± 95 %: half width of the confidence '
        "interval of the mean over seeds, by Student's t distribution.",
        'Two backbones are distinguished if the 95 % interval of their difference excludes 0. Its variance has two '
        'parts: over images (bootstrap, the same draws for both, scores averaged over seeds) and over seeds (pooled '
        'over the setting). A rank is one more than the number of better backbones that are distinguished from this '
        'one, without a correction for many comparisons. One seed, or no per-image results: no rank.',
        ONLY_MEASURED,
    ]
    return Section('settings', 'Scores against cost', notes, blocks)


def _z_scores(results: Results) -> Section | None:
    if not results.groups:
        return None
    notes = [
        'Distance of a backbone from the mean of the backbones in a setting, in their (population) standard '
        'deviations, and its mean over the settings in which it was measured (as in Battle of the Backbones). Frozen '
        'and trained backbones are separate settings.'
    ]
    blocks = []
    for tier in ('full', 'proxy', 'smoke'):
        scores = results.scores[[setting for setting in results.groups if setting.tier == tier]]
        z = z_scores(scores)
        if few := [setting.label for setting in scores if setting not in z]:
            notes.append(f'Left out, with fewer than {MIN_FOR_Z} backbones: {"; ".join(few)}.')
        if not z.empty:
            blocks.append(_z_block(results, tier, z))
    return Section('z-scores', 'z-scores', notes, blocks)


def _z_block(results: Results, tier: str, z: pd.DataFrame) -> Block:
    """z-scores of candidates (rows) in settings (columns), best mean first."""
    z = z.dropna(how='all')
    means = z.mean(axis=1).sort_values(ascending=False, kind='stable')
    rows = [(results.labels[c], c.family, mean, z.loc[c].dropna()) for c, mean in means.items()]
    columns = [Column('backbone'), Column('mean z', 2, signed=True), Column('settings', 0)]
    columns += [Column(setting.label, 2, signed=True) for setting in z]
    cells = [[label, mean, len(found), *(found.get(setting) for setting in z)] for label, _, mean, found in rows]
    drawn = [(*row, {s.label: value for s, value in found.items()}) for *row, found in rows]
    plot = figures.z_scores(drawn, family_styles(results.families))
    return Block(f'Tier {tier}', '', [plot], Table(f'z-scores, tier {tier}', columns, cells))


def _correlations(results: Results) -> Section | None:
    settings = list(results.groups)
    if len(settings) < 2:
        return None
    note = (
        "Spearman's rank correlation over the backbones that two settings have in common, with their number in "
        f'brackets; not given for fewer than {MIN_FOR_CORRELATION}.'
    )
    rho, numbers = rank_correlations(results.scores)
    columns = [Column('setting'), *(Column(str(i + 1)) for i in range(len(settings)))]
    rows: list[list[tables.Cell]] = []
    for i, setting in enumerate(settings):
        texts = [f'{_rho(rho.iat[i, j])} ({numbers.iat[i, j]})' for j in range(i)]
        rows.append([f'{i + 1}. {setting.label}', *texts, '1', *[''] * (len(settings) - i - 1)])
    table = Table('Rank correlation between settings', columns, rows, sortable=False)
    return Section('correlation', 'Rank correlation between settings', [note], [Block(table=table)])


def _rho(value: float) -> str:
    return '–' if pd.isna(value) else f'{value:.2f}'.replace('-', '−')


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
    note = 'The same backbone, weights and setting, with the backbone frozen and fine-tuned.'
    return Section('frozen', 'Frozen against trained', [note], [Block('', '', [plot], Table('Frozen', columns, rows))])


def _frozen_pairs(results: Results) -> Iterator[tuple[Group, Group]]:
    for setting, groups in results.groups.items():
        trained = {group.candidate: group for group in results.groups.get(replace(setting, frozen=False), [])}
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
    note = 'On the dotted line, measured and published values are equal; schedules may differ (see the table).'
    return Section(
        'published', 'Measured against published', [note], [Block('', '', plots, Table('Published', columns, cells))]
    )


def _curves(results: Results) -> Section | None:
    styles = family_styles(results.families)
    blocks = []
    runs = [
        row for row in results.drawn_runs if row['origin'] == 'measured' and any((row.get('curves') or {}).values())
    ]
    for setting in sorted({setting_of(row) for row in runs}):
        here = [row for row in runs if setting_of(row) == setting]
        plots = []
        for name in curve_names(here, results.metrics.get(setting)):
            drawn = [(_run_label(results, row), row) for row in here if row['curves'].get(name)]
            plots.append(figures.curves(name, drawn, styles))
        blocks.append(Block(setting.label, '', plots))
    note = 'Lines of runs that did not finish are dashed. The numbers are in rows.jsonl.'
    return Section('curves', 'Curves', [note], blocks) if blocks else None


def curve_names(rows: Sequence[Row], metric: str | None) -> list[str]:
    """The loss and the metric by which runs are ranked; all curves if there is neither."""
    present = list(dict.fromkeys(name for row in rows for name, points in row['curves'].items() if points))
    return [name for name in ('loss', metric) if name in present] or present


def _run_label(results: Results, row: Row) -> str:
    return f'{results.labels[candidate_of(row)]}, seed {row["identity"]["seed"]}'


def growth_lines(results: Results) -> dict[str, list[tuple[str, list[float], list[float]]]]:
    """Title of a plot -> (backbone, pixels, values), for backbones that were profiled at two sizes or more.

    Values are of one combination of batch size, machine, precision and threads: the one with most rows.
    """
    rows = [row for row in results.profiles if row['origin'] == 'measured' and row['state'] == 'finished']
    conditions = [_conditions(row) for row in rows]
    common = max(conditions, key=conditions.count, default=None)
    lines: dict[str, list[tuple[str, list[float], list[float]]]] = {}
    for axis in AXES[:4]:
        for name in dict.fromkeys(backbone_of(row) for row in rows):
            same = [row for row in rows if backbone_of(row) == name and _conditions(row) == common]
            points = {_pixels(row): value for row in same if (value := axis.read(row)) is not None}
            if len(points) > 1:
                lines.setdefault(axis.title, []).append((name, sorted(points), [points[x] for x in sorted(points)]))
    return lines


def _conditions(row: Row) -> tuple[object, ...]:
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
        'Backbones alone, on logarithmic axes: a slope of 1 is growth with the number of pixels, 2 with its square, as '
        'of global attention. Exponents are fitted over all sizes. In Markdown, pictures with many backbones show only '
        'the smallest of each family.'
    )
    block = Block('', '', plots, tables.growth_table(lines))
    return Section('growth', 'Growth with resolution', [note], [block])


def _profiles(results: Results) -> Section | None:
    if not results.profiles:
        return None
    note = 'Backbones alone, in inference except for the memory in training. Latency is the median for one batch.'
    block = Block(table=tables.profile_table(results.profiles))
    return Section('profiles', 'Cost and speed of backbones', [note], [block])


def _failures(results: Results) -> Section:
    rows = [row for row in results.rows if row['state'] != 'finished']
    if not rows:
        return Section('failures', 'Failures', ['Every job finished.'])
    return Section('failures', 'Failures', [], [Block(table=tables.failure_table(rows, describe))])


def _origins(results: Results) -> Section:
    note = 'The environments of the measurements. A + after the commit means that there were uncommitted changes.'
    return Section('origins', 'Origin of the rows', [note], [Block(table=tables.origin_table(results.rows))])


def _all_groups(results: Results) -> Iterator[Group]:
    for groups in results.groups.values():
        yield from groups
