"""The doctor: its checks on faked machines, and the command on this one and on a broken one."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from packaging.requirements import Requirement

from hybrid_backbones.doctor import checks, probes, speed
from hybrid_backbones.doctor.__main__ import main
from hybrid_backbones.doctor.isolated import answers


@pytest.fixture(autouse=True)
def no_arguments(nothing_cached, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['doctor'])


@pytest.fixture(autouse=True)
def nothing_cached():
    checks._distributions.cache_clear()
    yield
    checks._distributions.cache_clear()


@pytest.fixture
def answer(monkeypatch):
    """Give the answers of probes; every import works that is not given."""
    given = {}
    monkeypatch.setattr(checks, '_ask', lambda probe: given.get(probe, {}))
    return lambda **more: given.update({name.replace('import_', 'import:'): value for name, value in more.items()})


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Fake an installed distribution of `module`."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name: str, version: str, module: str) -> None:
        info = tmp_path / f'{name.replace("-", "_")}-{version}.dist-info'
        info.mkdir()
        (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
        (info / 'top_level.txt').write_text(f'{module}\n')
        checks._distributions.cache_clear()

    return install


def _declare(monkeypatch, *requirements):
    monkeypatch.setattr(checks, '_declared', lambda: [Requirement(text) for text in requirements])


def _distribute(monkeypatch, owners):
    """Fake distributions, given as (name, version) for each module."""
    versions = dict(pair for pairs in owners.values() for pair in pairs)

    def version(name):
        if name not in versions:
            raise checks.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(
        checks, '_distributions', lambda: {m: sorted(n for n, _ in pairs) for m, pairs in owners.items()}
    )
    monkeypatch.setattr(checks.metadata, 'version', version)


def test_no_duplicates_here():
    _, problems = checks.duplicates()
    assert [problem.text for problem in problems if 'mm' in problem.text] == []
    assert checks.stacks() == ([], [])


@pytest.mark.parametrize(
    ('owners', 'module', 'keep'),
    [
        ([('opencv-python', '4.12'), ('opencv-python-headless', '4.12')], 'cv2', 'opencv-python>=4.7'),
        ([('mmpycocotools', '12.0'), ('pycocotools', '2.0.11')], 'pycocotools', 'pycocotools'),
    ],
)
def test_distributions_of_one_module_are_found(monkeypatch, owners, module, keep):
    _distribute(monkeypatch, {module: owners})
    _declare(monkeypatch, 'opencv-python>=4.7')
    _, (problem,) = checks.duplicates()
    for name, version in owners:
        assert f'{name} {version}' in problem.text
        assert name in problem.fix.split('&&')[0]
    assert problem.fix.endswith(f"pip install '{keep}'")
    assert not problem.fatal


@pytest.mark.parametrize(
    ('owners', 'extra'),
    [
        ({'mmcv': [('onedl-mmcv', '2.3.6')], 'mmdet': [('mmdet', '3.3.0')], 'mmseg': [('mmsegmentation', '1.2.2')]}, 0),
        ({'mmcv': [('onedl-mmcv', '2.3.6'), ('mmcv-lite', '2.1.0')], 'mmengine': [('onedl-mmengine', '0.10.12')]}, 1),
    ],
)
def test_upstream_beside_forks_is_found(monkeypatch, owners, extra):
    _distribute(monkeypatch, owners)
    wanted = [['mmcv-lite<2.2', 'mmdet<4'], ['onedl-mmcv>=2.3.6', 'onedl-mmdetection>=3.5.1']]
    declared = [
        'numpy>=1',
        *(
            f"{text}; extra == '{name}'"
            for name, texts in zip(('openmmlab', 'onedl'), wanted, strict=True)
            for text in texts
        ),
    ]
    monkeypatch.setattr(checks.metadata, 'requires', lambda name: declared)
    _, (problem,) = checks.stacks()
    for name, version in (pair for pairs in owners.values() for pair in pairs):
        assert f'{name} {version}' in problem.text
        assert name in problem.fix.split('&&')[0]
    assert problem.fix.endswith('pip install ' + ' '.join(f"'{text}'" for text in wanted[extra]))


def test_mixed_distributions_on_disk(installed, monkeypatch):
    monkeypatch.setattr(checks, 'COMPONENTS', {'mmcv': 'layers'})
    installed('onedl-mmcv', '2.3.1', 'mmcv')
    _, (problem,) = checks.stacks()
    assert 'onedl-mmcv 2.3.1' in problem.text
    (row,), _ = checks.components()
    assert 'onedl-mmcv' in row.what
    assert '2.3.1' in row.version


@pytest.mark.parametrize(('compiled', 'keep'), [(True, 'mmcv'), (False, 'mmcv-lite')])
def test_of_mmcv_and_mmcv_lite_the_compiled_one_is_kept(monkeypatch, compiled, keep):
    monkeypatch.setattr(
        checks.importlib.machinery.PathFinder, 'find_spec', lambda *args: object() if compiled else None
    )
    monkeypatch.setattr(checks.importlib.util, 'find_spec', lambda name: SimpleNamespace(submodule_search_locations=[]))
    assert checks._keep('mmcv', ['mmcv', 'mmcv-lite']) == keep


def test_requirements(monkeypatch, installed):
    installed('hb-old', '1.0', 'hb_old')
    installed('onedl-thing', '1.0', 'thing')
    _declare(monkeypatch, 'hb-old>=2', 'hb-absent', 'thing', 'setuptools>=1', 'torch')
    rows, problems = checks.requirements()
    assert [row.what for row in rows] == ['setuptools']
    old, absent = problems  # `thing` comes with a fork
    assert (old.text, old.fix) == ('hb-old 1.0 is installed, hb-old>=2 is required', "pip install 'hb-old>=2'")
    assert (absent.text, absent.fix) == ('hb-absent is missing', "pip install 'hb-absent'")


def test_the_reason_of_a_requirement_is_given(monkeypatch):
    _declare(monkeypatch, 'setuptools<1')
    _, (problem,) = checks.requirements()
    assert 'pkg_resources' in problem.text


def test_a_broken_component_is_named_once(monkeypatch):
    monkeypatch.setattr(checks, '_import_error', lambda module: 'ImportError: libcudart.so' if 'c' in module else '')
    _declare(monkeypatch, 'torchvision>=0.20')
    rows, (problem,) = checks.components()
    broken = {row.what for row in rows if row.remark.endswith('cannot be imported')}
    assert {'torch', 'torchvision'} <= broken
    assert problem.text.startswith('torch ')
    assert problem.fix == "pip install --force-reinstall 'torch'"


def test_mmcv_missing(monkeypatch):
    monkeypatch.setattr(checks, '_owners', lambda module: [])
    monkeypatch.setattr(checks, '_import_error', lambda module: 'ModuleNotFoundError' if 'mmcv' in module else '')
    (row,), (problem,) = checks.operators()
    assert row.version == 'missing'
    assert problem.fix == f"pip install '{checks.LITE}'"


@pytest.mark.parametrize(('version', 'fine'), [('2.0.0', False), ('2.0.1', True), ('2.2.0', True), ('2.3.0rc1', False)])
def test_mmcv_versions(answer, version, fine):
    answer(operators=dict(version=version, patched=''))
    _, problems = checks.operators()
    assert fine == (not any(problem.text.startswith(f'mmcv {version} is installed') for problem in problems))


@pytest.mark.parametrize(
    ('patched', 'remark', 'number'),
    [
        ('', 'compiled mmcv', 0),
        ('mmcv has no compiled operators; ...', 'stand-in from torch and torchvision', 0),
        ("mmcv 2.1.0's compiled operators cannot be loaded with torch 2.14", 'stand-in from torch and torchvision', 1),
    ],
)
def test_where_operators_come_from(answer, patched, remark, number):
    answer(operators=dict(version='2.1.0', patched=patched))
    (row,), problems = checks.operators()
    assert row.remark == remark
    assert len(problems) == number
    assert all('mmcv-lite' in problem.fix for problem in problems)


def test_operators_that_cannot_be_imported(answer):
    answer(operators=dict(error='ImportError: undefined symbol'))
    (row,), (problem,) = checks.operators()
    assert (row.version, row.remark) == ('missing', 'ImportError: undefined symbol')
    assert problem.text == "mmcv's operators cannot be imported: ImportError: undefined symbol"


def test_gpus(answer):
    h200 = dict(name='H200', gib=139.4, capability=[9, 0], error='')
    p100 = dict(name='P100', gib=16, capability=[6, 0], error='no kernel image is available')
    answer(devices=dict(bf16='AMX', fp16_times=1.0, gpus=[h200, p100], available=True, built_for='13.0'))
    (cpu, one, two), (problem,) = checks.devices()
    assert cpu.what == 'CPU'
    assert 'bfloat16 (AMX)' in cpu.remark
    assert (one.what, one.version, one.remark) == ('GPU 0', '139 GiB', 'H200: float32, float16, bfloat16')
    assert two.remark == 'P100: cannot be used'
    assert 'no kernel image' in problem.text
    assert 'compute capability 6.0' in problem.fix


def test_gpus_are_listed_as_torch_sees_them(monkeypatch):
    cards = [SimpleNamespace(name='H200', total_memory=139 * 2**30, major=9, minor=0)]
    cards.append(SimpleNamespace(name='P100', total_memory=16 * 2**30, major=6, minor=0))
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: len(cards))
    monkeypatch.setattr(torch.cuda, 'get_device_properties', cards.__getitem__)
    monkeypatch.setattr(probes, '_gpu_error', lambda index: ['', 'no kernel image is available'][index])
    assert probes.devices()['gpus'] == [
        dict(name='H200', gib=139, capability=[9, 0], error=''),
        dict(name='P100', gib=16, capability=[6, 0], error='no kernel image is available'),
    ]


@pytest.mark.parametrize(('cuda', 'said'), [(None, 'built for CPUs'), ('13.0', 'built for CUDA 13.0 and sees no GPU')])
def test_a_gpu_that_torch_does_not_see(monkeypatch, answer, cuda, said):
    answer(devices=dict(bf16='', fp16_times=1.0, gpus=[], available=False, built_for=cuda))
    monkeypatch.setattr(checks.shutil, 'which', lambda name: '/usr/bin/nvidia-smi')
    _, (problem,) = checks.devices()
    assert said in problem.text


@pytest.mark.parametrize(('times', 'said', 'number'), [(1.1, '', 0), (33, '33 times', 0), (1880, '1880 times', 1)])
def test_slow_products_of_float16(answer, times, said, number):
    answer(devices=dict(bf16='', fp16_times=times, gpus=[], available=True, built_for=None))
    (cpu,), problems = checks.devices()
    assert said in cpu.remark
    assert len(problems) == number
    assert all(f'{said} slower' in problem.text for problem in problems)


def test_a_command_has_no_markers_that_pip_would_skip(monkeypatch):
    declared = ["mmengine>=0.10.6; extra == 'openmmlab'", "ray; extra == 'ray'", 'numpy>=1.24']
    monkeypatch.setattr(checks.metadata, 'requires', lambda name: declared)
    assert sorted(map(str, checks._declared())) == ['mmengine>=0.10.6', 'numpy>=1.24']


def test_an_error_of_a_probe_has_its_place(monkeypatch):
    def fail():
        raise RuntimeError('no such operator')

    monkeypatch.setattr(probes, '_train_one_step', fail)
    answer = probes.run('main_job')
    assert answer['error'] == 'RuntimeError: no such operator'
    assert 'test_doctor.py:' in answer['where']
    assert probes.run('import:no_such_module')['error'] == "ModuleNotFoundError: No module named 'no_such_module'"


def test_a_failing_main_job_is_fatal(monkeypatch, capsys, answer):
    answer(main_job=dict(error='RuntimeError: no such operator', where='mmcv/ops/nms.py:3'))
    monkeypatch.setattr(checks, 'CHECKS', (checks.python, checks.main_job))
    assert main() == 1
    out = capsys.readouterr().out
    assert 'RuntimeError: no such operator (mmcv/ops/nms.py:3)' in out
    assert 'mmdet==3.3.0' in out
    assert 'HYBRID_BACKBONES_COMPAT' not in out
    assert out.endswith('does NOT work here.\n')


def test_switched_off_patches_are_named(monkeypatch, answer):
    monkeypatch.setenv('HYBRID_BACKBONES_COMPAT', '0')
    answer(main_job=dict(error='ModuleNotFoundError: mmcv._ext'))
    (row,), _ = checks.patches()
    assert 'HYBRID_BACKBONES_COMPAT=0' in row.remark
    _, (problem,) = checks.main_job()
    assert problem.fix.startswith('unset HYBRID_BACKBONES_COMPAT, or ')


def test_other_problems_are_not(monkeypatch, capsys):
    rows, problem = [checks.Row('tool', '1.0')], checks.Problem('tool 1.0 is old', "pip install 'tool>=2'")
    monkeypatch.setattr(checks, 'CHECKS', (lambda: (rows, [problem]),))
    assert main() == 0
    assert capsys.readouterr().out == (
        "tool  1.0\n\nProblem 1: tool 1.0 is old\n  Fix: pip install 'tool>=2'\n\nTraining a detector works here.\n"
    )


def test_speed_has_a_row_for_every_shape(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['doctor', '--speed'])
    monkeypatch.setattr(speed, 'SHAPES', ((64, 32, 48),))
    assert main() == 0
    _, head, row, *attention = capsys.readouterr().out.splitlines()
    assert head.split()[-1] == 'chosen'
    assert re.match(r'64 x 32 x 48 +\d+ +\d+ +[\d-]+ +[\d-]+   F.linear; in training packed: none$', row)
    assert [line.split(':')[-1] for line in attention] == [' PyTorch'] * 2


def _command(**environment):
    command = [sys.executable, '-m', 'hybrid_backbones.doctor']
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=300)


def test_the_command_here():
    done = _command()
    assert (done.returncode, done.stderr) == (0, ''), done.stdout
    for word in ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmsegmentation', 'timm', 'numpy', 'opencv',
                 'pycocotools', 'setuptools', 'operators', 'CPU', 'one training step with Conv2Former-N'):  # fmt: skip
        assert word in done.stdout
    assert done.stdout.endswith('Training a detector works here.\n')


def test_a_crash_ends_one_probe_and_no_other(tmp_path, monkeypatch):
    (tmp_path / 'crashes.py').write_text('import os, signal; os.kill(os.getpid(), signal.SIGSEGV)\n')
    (tmp_path / 'exits.py').write_text('import os; os._exit(3)\n')
    (tmp_path / 'prints.py').write_text('print("{}")\n')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    modules = ('json', 'crashes', 'exits', 'prints', 'absent')
    found = [answers(*(f'import:{module}' for module in modules))[f'import:{module}'] for module in modules]
    assert found[:4] == [
        {},
        dict(error='the interpreter crashed with SIGSEGV'),
        dict(error='the interpreter exited with status 3'),
        {},
    ]
    assert found[4]['error'].startswith('ModuleNotFoundError')


@pytest.mark.parametrize(
    ('module', 'code', 'said'),
    [
        ('torch', 'raise ImportError("built for another machine")', 'ImportError: built for another machine'),
        ('torch', 'import os; os.abort()', 'the interpreter crashed with SIGABRT'),
        ('mmdet', 'raise ImportError("built for another machine")', 'ImportError: built for another machine'),
    ],
)
def test_the_command_where_a_component_is_broken(tmp_path, module, code, said):
    (tmp_path / f'{module}.py').write_text(f'{code}\n')
    done = _command(PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ['PYTHONPATH']]))
    assert (done.returncode, done.stderr) == (1, '')
    assert f'{module} ' in done.stdout
    assert done.stdout.count(f'cannot be imported: {said}\n  Fix: pip install') == 1
    assert done.stdout.endswith('does NOT work here.\n')
