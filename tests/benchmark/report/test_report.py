"""The files of a report, without a browser."""

import csv
import io
import json
import re

import pytest
from synthetic_rows import ENVIRONMENT, SETTINGS, cost, many_rows, profile_row, run_row, speed

from hybrid_backbones.benchmark.report import write_report
from hybrid_backbones.benchmark.report.comparison import Comparison
from hybrid_backbones.benchmark.report.flat import write_csv
from hybrid_backbones.benchmark.report.grouping import AXES, Results, family_of, setting_of
from hybrid_backbones.benchmark.report.markdown import write_markdown
from hybrid_backbones.benchmark.report.sections import growth_lines, notice, sections
from hybrid_backbones.benchmark.report.tables import Column, pareto_fronts, results_table, setting_table

AXIS = {axis.key: axis for axis in AXES}
NAMES = ('cvt_13', 'moat_0', 'slak_t', 'ceit_s')


def test_files_and_pictures(tmp_path):
    files = write_report(many_rows(settings=1, seeds=1), tmp_path / 'new' / 'report', 'A title')
    names = [file.name for file in files]
    assert names[:3] == ['report.html', 'report.md', 'report.csv']
    assert sorted(names[3:]) == [
        'curves.png',
        'growth.png',
        'pareto_1_mask-rcnn-coco-1x.png',
        'pareto_2_mask-rcnn-coco-1x-frozen.png',
    ]
    assert sorted(path.name for path in files[0].parent.iterdir()) == sorted(names)
    markdown = files[1].read_text()
    assert set(re.findall(r'\]\((.*?)\)', markdown)) == set(names[3:])
    headings = re.findall(r'^## (.*)$', markdown, flags=re.MULTILINE)
    assert headings == [
        'Scores against cost',
        'z-scores',
        'Rank correlation between settings',
        'Frozen against trained',
        'Measured against published',
        'Curves',
        'Growth with resolution',
        'Cost and speed of backbones',
        'Failures',
        'Origin of the rows',
    ]


def test_no_rows(tmp_path):
    page, markdown, table = write_report([], tmp_path, 'Nothing yet')
    assert 'There are no rows yet. Run a sweep' in page.read_text()
    assert 'There are no rows yet. Run a sweep' in markdown.read_text()
    assert table.read_text() == ''


def test_mean_and_deviation_are_over_seeds():
    rows = [run_row(score=score, seed=seed) for seed, score in enumerate((40.0, 41.0, 42.0))]
    table = results_table(Results(rows))
    at = {column.title: i for i, column in enumerate(table.columns)}
    assert [row[at['mask AP']] for row in table.rows] == [40, 41, 42]
    assert {(row[at['mean']], row[at['± std']], row[at['seeds']]) for row in table.rows} == {(41, 1, 3)}


def test_only_measured_and_finished_rows_are_ranked():
    rows = [run_row(name, score=40 + i) for i, name in enumerate(NAMES)]
    rows += [run_row('quoted_1', score=60, origin='quoted'), run_row('converted_1', score=61, origin='converted')]
    rows += [run_row('killed_1', score=62, state='killed', reason='signal 15')]
    results = Results(rows)
    setting = setting_of(rows[0])
    assert [group.label for group in results.groups[setting]] == list(reversed(NAMES))
    table = setting_table(results, setting, Comparison(results.groups[setting]))
    # Without several seeds there are no ranks.
    assert table.columns[0].title == 'backbone'
    assert [(row[0], row[1]) for row in table.rows[3:]] == [
        ('cvt_13', 'measured'),
        ('converted_1', 'converted'),
        ('quoted_1', 'quoted'),
    ]
    assert table.unranked == {4, 5}
    (z,) = [section for section in sections(results) if section.anchor == 'z-scores']
    assert [row[0] for row in z.blocks[0].table.rows] == list(reversed(NAMES))


def test_settings_with_quoted_rows_only_have_no_ranks():
    results = Results([run_row(origin='quoted')])
    (found,) = [section for section in sections(results) if section.anchor == 'settings']
    assert found.blocks[0].plots == []
    assert [column.title for column in found.blocks[0].table.columns] == ['backbone', 'origin', 'mask AP, %']


@pytest.mark.parametrize(('metrics', 'main'), [({'box_AP': 1.0, 'mask_AP': 2.0}, 'mask_AP'), ({'mIoU_ms': 1.0}, None)])
def test_main_metric(metrics, main):
    assert list(Results([run_row(metrics=metrics)]).metrics.values()) == ([main] if main else [])


def test_each_machine_has_its_own_latency_front():
    here, there = ENVIRONMENT, dict(ENVIRONMENT, device='another')
    rows = [
        run_row('cvt_13', score=40, cost=cost(20, 100), speed=speed(0.2), environment=here),
        run_row('cvt_21', score=39, cost=cost(30, 200), speed=speed(0.3), environment=here),
        run_row('moat_0', score=38, cost=cost(25, 150), speed=speed(0.1), environment=there),
    ]
    (groups,) = Results(rows).groups.values()

    def fronts(key):
        return [[group.label for group in front] for front in pareto_fronts(groups, AXIS[key])]

    assert fronts('latency') == [['cvt_13'], ['moat_0']]
    assert fronts('macs') == [['cvt_13']]
    assert fronts('memory') == []


def test_settings_with_too_few_backbones_are_named():
    text = write_markdown(Results([run_row()]), sections(Results([run_row()])), 'A title', {})
    assert 'Left out, with fewer than 3 backbones: mask-rcnn, coco, 1x.' in text


@pytest.mark.parametrize(('tier', 'said'), [('full', False), ('proxy', True), ('smoke', True)])
def test_small_tiers_have_a_notice(tier, said, tmp_path):
    results = Results([run_row(tier=tier)])
    assert bool(notice(results)) is said
    assert ('they are no general ranking' in write_markdown(results, [], 'A title', {})) is said


def test_labels_have_the_weights_only_if_needed():
    scratch = dict(weights_sha256=None, weights=None)
    same_name = dict(weights_sha256='ef' * 32)
    rows = [
        run_row('moat_0'),
        run_row(),
        run_row(**scratch),
        run_row(**same_name),
        run_row(options=dict(out_norm=False)),
    ]
    labels = list(Results(rows).labels.values())
    assert labels[0] == 'moat_0'
    assert labels[1] == f'cvt_13, cvt_13.pth {"ab" * 32}'
    assert labels[2] == 'cvt_13, from scratch'
    assert labels[4] == 'cvt_13:out_norm=False'


@pytest.mark.parametrize(
    ('name', 'family'),
    [
        ('timm_convnext_t', 'convnext'),
        ('timm_tf_efficientnet_lite0', 'efficientnet'),
        ('tiny_moat_0', 'moat'),
        ('deit_s:x=1_2', 'deit'),
        ('timm', 'timm'),
    ],
)
def test_family(name, family):
    assert family_of(name) == family


def test_growth_is_of_one_machine_and_batch_size():
    rows = [profile_row(side=side, cost=cost(18, side**2 * 1e-5, side)) for side in (224, 512)]
    rows += [profile_row(side=1024, batch_size=8, cost=cost(18, 99, 1024)), profile_row('moat_0')]
    assert growth_lines(Results(rows)) == {'MACs, G': [('cvt_13', [224**2, 512**2], pytest.approx([0.50176, 2.62144]))]}


def test_csv_has_a_line_for_each_row_and_no_formulas():
    rows = [
        run_row('=cmd|calc', cost=cost(45, 250), weights=dict(file='@x', loaded=0.5), reason='-1+1'),
        profile_row(options=dict(arch='+1'), cost=cost(18, 40)),
    ]
    lines = list(csv.DictReader(io.StringIO(write_csv(rows))))
    assert lines[0]['backbone'] == "'=cmd|calc"
    assert lines[0]['weights_file'] == "'@x"
    assert lines[0]['reason'] == "'-1+1"
    assert (lines[0]['mask_AP_percent'], lines[0]['model_macs']) == ('40.0', '250000000000')
    assert json.loads(lines[1]['options']) == {'arch': '+1'}
    assert (lines[1]['record'], lines[1]['input_height_px'], lines[1]['mask_AP_percent']) == ('profile', '512', '')


def test_negative_numbers_are_not_escaped_in_the_csv():
    published = dict(metrics={'mask_AP': 41.0}, difference={'mask_AP': -1.0}, source='x', trust='y', schedule='1x')
    (line,) = csv.DictReader(io.StringIO(write_csv([run_row(published=published)])))
    assert line['minus_published_mask_AP_points'] == '-1.0'


def test_markdown_escapes_names():
    hostile = ['<img src=x onerror=alert(1)>', 'a|b', '![x](http://example.org/x.png)', 'a\n# b', '`x`', '**x**']
    results = Results([run_row(name, score=40 + i) for i, name in enumerate(hostile)])
    text = write_markdown(results, sections(results), '<script>\n# x', {})
    assert not re.search(r'(?<!\\)<', text)
    assert '](http' not in text.replace('\\]', '')
    assert '\n# b' not in text
    ranking = [line for line in text.splitlines() if '| measured |' in line]
    # In the ranking and in the table of origins.
    assert {len(re.findall(r'(?<!\\)\|', line)) for line in ranking} == {5, 9}
    assert text.startswith('# \\<script\\> # x\n')


def test_hostile_names_can_be_drawn(tmp_path):
    curves = {'loss': [[1, 2.0], [2, 1.0]], '$\\frac{': [[1, 2.0]]}
    rows = [
        run_row('$\\frac{_x', dataset='../../x$', cost=cost(45, 250), curves=curves),
        run_row('_y', dataset='../../x$', cost=cost(45, 0), curves=curves),
        run_row(dataset='', framework='/', schedule='*', cost=cost(45, 250), curves={'loss': []}),
    ]
    files = write_report(rows, tmp_path, '$x$')
    assert {file.parent for file in files} == {tmp_path}


def test_format_of_numbers():
    assert Column('x', 2).format(-0.001) == '0.00'
    assert Column('x', 1, signed=True).format(-2.25) == '−2.2'
    assert Column('x', 1, signed=True).format(2.0) == '+2.0'
    assert Column('x', 1).format(None) == Column('x').format(None) == '–'


def test_long_curves_are_thinned_and_keep_their_last_point(tmp_path):
    curve = [[i, 1.0] for i in range(10_000)]
    results = Results([run_row(setting=SETTINGS[2], curves={'loss': curve})])
    (found,) = [section for section in sections(results) if section.anchor == 'curves']
    x = json.loads(found.blocks[0].plots[0].json)['data'][0]['x']
    assert (len(x), x[-1]) == (101, 9999)
