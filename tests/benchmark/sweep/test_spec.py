"""What a spec asks for, and everything that is wrong with one, before anything runs."""

import textwrap
from pathlib import Path

import pytest

from hybrid_backbones import list_backbones
from hybrid_backbones.benchmark.sweep.spec import Job, SpecError, read_spec

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
        datasets: {shapes: null}
        schedules: {short: {train_cfg.max_iters: 2}, long: {train_cfg.max_iters: 4}}
        size: [64, 96]
    frozen: [false, true]
    profile: {backbones: ['cvt_*', deit_t], sizes: [224, [96, 128]]}
"""


def test_jobs_are_the_product_with_each_model_profiled_once(tmp_path):
    jobs = read_spec(write(tmp_path, SPEC))
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


def test_a_job_survives_its_file():
    job = Job('run', dict(backbone='cvt_13', seed=1), dict(size=[1, 2]))
    assert Job.from_json(job.to_json()) == job


def test_identity_follows_what_is_computed_and_not_where(tmp_path):
    first = read_spec(write(tmp_path, SPEC))
    moved = tmp_path / 'elsewhere'
    (moved / 'data').mkdir(parents=True)
    again = read_spec(write(moved, SPEC.replace('shapes: null', 'shapes: data')))
    assert [job.id for job in first] == [job.id for job in again]
    changed = read_spec(write(moved, SPEC.replace('max_iters: 2', 'max_iters: 3')))
    short, same = [{job.id for job in jobs if job.identity.get('schedule') == 'short'} for jobs in (changed, first)]
    assert not short & same


def test_everything_that_is_not_there_is_listed_at_once(tmp_path):
    spec = """
        tier: smoke
        backbones: [cvt13, conv2former_t, {name: coatnet-0}, {name: cvt_w24, options: {window: 3}},
                    {name: cvt_21, checkpoint: nowhere.pth}, whatever]
        frameworks:
          - {name: upernet, config: no_such.py, datasets: {shapes: null}}
          - {name: fcn, config: CONFIG, datasets: {mine: no/such/folder}}
        profile: {backbones: ['resnext*'], sizes: [224]}
    """
    with pytest.raises(SpecError) as caught:
        read_spec(write(tmp_path, spec))
    message = str(caught.value)
    assert '8 problems' in message
    for part in (
        "unknown backbone 'cvt13'. Did you mean cvt_13",
        "unknown backbone 'coatnet-0'. Did you mean coatnet_0",
        "unknown backbone 'whatever'",
        'CvT takes no option window here; it takes',
        f'checkpoint of cvt_21: no file {tmp_path / "nowhere.pth"}',
        'config of upernet: no config',
        f'dataset mine: no folder {tmp_path / "no/such/folder"}',
        "profile: no backbone is called 'resnext*'",
    ):
        assert part in message


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('tier: quick\nseeds: [0, 0]', r"2 problems\n  .*'quick' is not one of.*\n?.*non-unique"),
        ('tier: smoke\nbackbone: [cvt_13]', "'backbone' was unexpected"),
        ('tier: [', 'is no YAML'),
        ('', "None is not of type 'object'"),
    ],
)
def test_what_is_no_spec_is_an_error_that_says_where(tmp_path, text, message):
    with pytest.raises(SpecError, match=message):
        read_spec(write(tmp_path, text))


def test_several_scales_are_for_segmentors(tmp_path):
    detector = CONFIG.with_name('maskrcnn_conv2former_n_shapes.py')
    frameworks = f'frameworks: [{{name: x, config: {detector}, datasets: {{shapes: null}}, multi_scale: true}}]'
    with pytest.raises(SpecError, match='multi_scale of x: segmentors only'):
        read_spec(write(tmp_path, f'tier: smoke\n{frameworks}'))
    segmentor = tmp_path / 'one_scale.py'
    segmentor.write_text("default_scope = 'mmseg'")
    with pytest.raises(SpecError, match='multi_scale of x: the config has no tta_pipeline'):
        read_spec(write(tmp_path, f'tier: smoke\n{frameworks.replace(str(detector), str(segmentor))}'))


def test_a_spec_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no spec .*gone\.yaml; examples are in configs/transfer'):
        read_spec(tmp_path / 'gone.yaml')


def test_the_smoke_tier_has_every_family():
    from hybrid_backbones.backbones.factory import find_backbone

    jobs = read_spec(ROOT / 'configs' / 'transfer' / 'smoke.yaml')
    asked = {find_backbone(job.identity['backbone'])[0] for job in jobs}
    assert asked == {find_backbone(name)[0] for name in list_backbones()}
