"""Specs: the jobs that follow from one, and all of its problems in one error, before anything runs."""

import json
import textwrap
from pathlib import Path

import pytest

from hybrid_backbones import list_backbones
from hybrid_backbones.benchmark.sweep.data import locate_datasets
from hybrid_backbones.benchmark.sweep.jobs import Job, read_jobs
from hybrid_backbones.benchmark.sweep.spec import SpecError
from hybrid_backbones.datasets.checks import DataError

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / 'configs' / 'upernet_conv2former_n_shapes.py'


def write(folder: Path, text: str) -> Path:
    path = folder / 'spec.yaml'
    path.write_text(textwrap.dedent(text).replace('CONFIG', str(CONFIG)))
    return path


SPEC = """
    tier: proxy
    backbones:
      - cvt_13
      - {name: deit_t, options: {window_size: 7}, seeds: [0, 1]}
    frameworks:
      - name: upernet
        config: CONFIG
        datasets: [shapes]
        schedules: {short: {train_cfg.max_iters: 2}, long: {train_cfg.max_iters: 4}}
        size: [64, 96]
    frozen: [false, true]
    profile: {backbones: ['cvt_*', deit_t], sizes: [224, [96, 128]]}
"""


def test_jobs_are_the_product_with_each_model_profiled_once(tmp_path):
    jobs = read_jobs(write(tmp_path, SPEC))
    runs = [job for job in jobs if job.record == 'run']
    assert [
        (r.identity['backbone'], r.identity['schedule'], r.identity['seed'], r.identity['frozen']) for r in runs
    ] == [
        *[('cvt_13', schedule, 0, frozen) for schedule in ('short', 'long') for frozen in (False, True)],
        *[
            ('deit_t', schedule, seed, frozen)
            for schedule in ('short', 'long')
            for seed in (0, 1)
            for frozen in (False, True)
        ],
    ]
    assert jobs[len(jobs) - len(runs) :] == runs  # profiles come first
    profiles = [job.identity for job in jobs if job.record == 'profile']
    assert [p['size'] for p in profiles if p['backbone'] == 'cvt_21'] == [[224, 224], [96, 128]]
    # By config and schedule, not by seed.
    assert sum(p['backbone'] == 'deit_t' and p['framework'] == 'upernet' for p in profiles) == 2
    assert len({job.id for job in jobs}) == len(jobs)


def test_job_json_round_trip():
    job = Job('run', dict(backbone='cvt_13', seed=1), dict(size=[1, 2]))
    assert Job.from_json(job.to_json()) == job


def test_identity_depends_on_the_computation_and_not_on_the_folder(tmp_path):
    first = read_jobs(write(tmp_path, SPEC))
    moved = tmp_path / 'elsewhere'
    moved.mkdir()
    again = locate_datasets(read_jobs(write(moved, SPEC)), {'shapes': moved / 'data'})
    assert [job.id for job in first] == [job.id for job in again]
    changed = read_jobs(write(moved, SPEC.replace('max_iters: 2', 'max_iters: 3')))
    short, same = [{job.id for job in jobs if job.identity.get('schedule') == 'short'} for jobs in (changed, first)]
    assert not short & same


def test_all_missing_inputs_are_listed_at_once(tmp_path):
    spec = """
        tier: smoke
        backbones: [cvt13, conv2former_t, {name: coatnet-0}, {name: cvt_w24, options: {window: 3}},
                    {name: cvt_21, checkpoint: nowhere.pth}, whatever]
        frameworks:
          - {name: upernet, config: no_such.py, datasets: [shapes]}
          - {name: fcn, config: CONFIG, datasets: [mine], multi_scale: true, size: [64, 64]}
        profile: {backbones: ['resnext*'], sizes: [224]}
    """
    with pytest.raises(SpecError) as caught:
        read_jobs(write(tmp_path, spec))
    message = str(caught.value)
    assert '7 problems' in message
    for part in (
        "unknown backbone 'cvt13'. Did you mean cvt_13",
        "unknown backbone 'coatnet-0'. Did you mean coatnet_0",
        "unknown backbone 'whatever'",
        'CvT takes no option window here; it takes',
        f'checkpoint of cvt_21: no file {tmp_path / "nowhere.pth"}',
        'config of upernet: no config',
        "profile: no backbone matches 'resnext*'",
    ):
        assert part in message


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (
            'tier: quick\nseeds: [0, 0]\nprofile: {backbones: [cvt_13], sizes: [[1, 2, 3]]}',
            r"3 problems\n  tier: .*'full', got 'quick'\n  seeds: .*values must differ, got \[0, 0\]\n"
            r'  profile\.sizes\.0: .*at most 2 items',
        ),
        ('tier: smoke\nbackbone: [cvt_13]', '1 problem\n  backbone: Extra inputs are not permitted'),
        (
            'tier: smoke\nbackbones: [{options: {}}, {name: 1}]',
            r'backbones\.0\.name: .*\n  backbones\.1\.name: .*string',
        ),
        ('tier: [', 'is not YAML'),
        ('', 'top level: .*valid dictionary'),
    ],
)
def test_invalid_spec_lists_every_problem_with_its_location(tmp_path, text, message):
    with pytest.raises(SpecError, match=message):
        read_jobs(write(tmp_path, text))


def test_multi_scale_needs_a_segmentor_with_tta_pipeline(tmp_path):
    detector = CONFIG.with_name('maskrcnn_conv2former_n_shapes.py')
    frameworks = f'frameworks: [{{name: x, config: {detector}, datasets: [shapes], multi_scale: true}}]'
    with pytest.raises(SpecError, match='multi_scale of x: segmentors only'):
        read_jobs(write(tmp_path, f'tier: smoke\n{frameworks}'))
    segmentor = tmp_path / 'one_scale.py'
    segmentor.write_text("default_scope = 'mmseg'")
    with pytest.raises(SpecError, match='multi_scale of x: the config has no tta_pipeline'):
        read_jobs(write(tmp_path, f'tier: smoke\n{frameworks.replace(str(detector), str(segmentor))}'))


def test_an_engine_has_fp32_and_one_scale(tmp_path):
    segmentor = CONFIG.with_name('upernet_conv2former_n_shapes.py')
    text = f'tier: smoke\nframeworks: [{{name: x, config: {segmentor}, datasets: [shapes], engine: openvino}}]'
    with pytest.raises(SpecError, match='engine of x: files compute in fp32, and the spec has precision bf16'):
        read_jobs(write(tmp_path, f'{text}\nprecision: bf16'))
    with pytest.raises(SpecError, match='multi_scale of x: a file for openvino has one scale'):
        read_jobs(write(tmp_path, text.replace('openvino}', 'openvino, multi_scale: true}')))


def test_rows_of_an_engine_are_other_rows(tmp_path):
    segmentor = CONFIG.with_name('upernet_conv2former_n_shapes.py')
    text = f'tier: smoke\nbackbones: [conv2former_n]\nframeworks: [{{name: x, config: {segmentor}, datasets: [shapes]'
    ids = [{job.id for job in read_jobs(write(tmp_path, text + end))} for end in ('}]', ', engine: openvino}]')]
    assert len(ids[0]) == len(ids[1]) == 2 and not ids[0] & ids[1]


def test_missing_spec_is_an_error_with_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no spec .*gone\.yaml; examples are in configs/transfer'):
        read_jobs(tmp_path / 'gone.yaml')


def test_smoke_tier_covers_every_family():
    from hybrid_backbones.backbones.factory import find_backbone

    jobs = read_jobs(ROOT / 'configs' / 'transfer' / 'smoke.yaml')
    asked = {find_backbone(job.identity['backbone'])[0] for job in jobs}
    assert asked == {find_backbone(name)[0] for name in list_backbones()}


@pytest.mark.parametrize('tier', ['smoke', 'proxy', 'pretrained'])
def test_published_results_have_the_ids_of_their_specs(tier):
    from hybrid_backbones.benchmark.rows import FILE

    folder = 'smoke' if tier == 'smoke' else 'proxy'
    lines = (ROOT / 'docs' / 'results' / folder / FILE).read_text().splitlines()
    found = {row['id'] for row in map(json.loads, lines) if row['state'] == 'finished'}
    spec = ROOT / 'configs' / 'transfer' / f'{tier}.yaml'
    # Weights of `pretrained` are downloaded.
    expected = {job.id for job in read_jobs(spec)} if tier != 'pretrained' else set()
    assert expected <= found


DETECTOR = ROOT / 'configs' / 'proxy_maskrcnn_conv2former_n_coco.py'
DATA_SPEC = f"""
    tier: smoke
    backbones: [cvt_13]
    frameworks:
      - {{name: mask_rcnn, config: {DETECTOR}, datasets: [my-coco]}}
      - {{name: upernet, config: {ROOT}/configs/proxy_upernet_conv2former_n_ade20k.py, datasets: [my_ade]}}
      - {{name: shapes, config: CONFIG, datasets: [shapes]}}
"""


@pytest.fixture
def coco(tmp_path) -> Path:
    """An empty dataset in COCO's layout."""
    root = tmp_path / 'coco'
    (root / 'annotations').mkdir(parents=True)
    for split in ('train2017', 'val2017'):
        (root / split).mkdir()
        (root / 'annotations' / f'instances_{split}.json').write_text('{"images": []}')
    return root


def test_missing_datasets_are_one_error_with_layout_and_remedy(tmp_path, coco):
    jobs = read_jobs(write(tmp_path, DATA_SPEC))
    (coco / 'annotations' / 'instances_val2017.json').unlink()
    with pytest.raises(DataError) as caught:
        locate_datasets(jobs, {'my-coco': coco})
    message = str(caught.value)
    assert f'dataset my-coco is missing or incomplete:\n  no file {coco}/annotations/instances_val2017.json' in message
    assert 'COCO 2017 is expected as' in message
    assert '--data my-coco=FOLDER or HYBRID_BACKBONES_DATA_MY_COCO=FOLDER' in message
    # Nothing is given for this one: the config's own folder is looked at.
    assert 'dataset my_ade is missing or incomplete:\n  no folder data/ade/ADEChallengeData2016/images' in message
    assert 'images/training/*.jpg' in message
    assert 'dataset shapes' not in message


def test_folders_come_from_the_command_line_then_the_environment(tmp_path, coco, monkeypatch):
    jobs = [job for job in read_jobs(write(tmp_path, DATA_SPEC)) if job.identity['framework'] != 'upernet']
    monkeypatch.setenv('HYBRID_BACKBONES_DATA_MY_COCO', str(coco))
    roots = {job.identity['dataset']: job.task['data_root'] for job in locate_datasets(jobs, {}) if job.record == 'run'}
    assert roots == {'my-coco': str(coco), 'shapes': None}
    monkeypatch.setenv('HYBRID_BACKBONES_DATA_MY_COCO', str(tmp_path / 'nowhere'))
    located = locate_datasets(jobs, {'my-coco': coco})
    assert [job.id for job in located] == [job.id for job in jobs]
    assert str(coco) in [job.task.get('data_root') for job in located]
    with pytest.raises(ValueError, match='--data mycoco: the spec has no such dataset; it has my-coco, shapes'):
        locate_datasets(jobs, {'mycoco': coco})
