"""The doctor: its checks on faked machines, and the command on this one and on a broken one."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from packaging.requirements import Requirement

from hybrid_backbones import compat, doctor


@pytest.fixture(autouse=True)
def nothing_cached():
    doctor._distributions.cache_clear()
    doctor._import_error.cache_clear()
    yield
    doctor._distributions.cache_clear()
    doctor._import_error.cache_clear()


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Fake an installed distribution of `module`."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name: str, version: str, module: str) -> None:
        info = tmp_path / f'{name.replace("-", "_")}-{version}.dist-info'
        info.mkdir()
        (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
        (info / 'top_level.txt').write_text(f'{module}\n')
        doctor._distributions.cache_clear()

    return install


def _declare(monkeypatch, *requirements):
    monkeypatch.setattr(doctor, '_declared', lambda: [Requirement(text) for text in requirements])


def test_no_duplicates_here():
    _, problems = doctor.duplicates()
    assert [problem.text for problem in problems if 'mm' in problem.text] == []


@pytest.mark.parametrize(
    ('owners', 'module', 'keep'),
    [
        ([('onedl-mmcv', '2.3.0'), ('mmcv', '2.1.0')], 'mmcv', 'mmcv'),
        ([('onedl-mmdetection', '3.4.0'), ('mmdet', '3.3.0')], 'mmdet', 'mmdet<4,>=3.2'),
        ([('onedl-mmengine', '0.11.0'), ('mmengine', '0.10.7')], 'mmengine', 'mmengine'),
        ([('mmpycocotools', '12.0'), ('pycocotools', '2.0.11')], 'pycocotools', 'pycocotools'),
    ],
)
def test_mixed_distributions_are_found(monkeypatch, owners, module, keep):
    monkeypatch.setattr(doctor, '_distributions', lambda: {module: sorted(name for name, _ in owners)})
    monkeypatch.setattr(doctor.metadata, 'version', dict(owners).__getitem__)
    _declare(monkeypatch, 'mmdet>=3.2,<4')
    _, (problem,) = doctor.duplicates()
    for name, version in owners:
        assert f'{name} {version}' in problem.text
        assert name in problem.fix.split('&&')[0]
    assert problem.fix.endswith(f"pip install '{keep}'")
    assert not problem.fatal


def test_mixed_distributions_on_disk(installed, monkeypatch):
    monkeypatch.setattr(doctor, 'COMPONENTS', {'mmcv': 'layers'})
    installed('onedl-mmcv', '2.3.1', 'mmcv')
    _, problems = doctor.duplicates()
    (problem,) = (problem for problem in problems if '`mmcv`' in problem.text)
    assert 'onedl-mmcv 2.3.1' in problem.text
    (row,), _ = doctor.components()
    assert 'onedl-mmcv' in row.what
    assert '2.3.1' in row.version


@pytest.mark.parametrize(('compiled', 'keep'), [(True, 'mmcv'), (False, 'mmcv-lite')])
def test_of_mmcv_and_mmcv_lite_the_compiled_one_is_kept(monkeypatch, compiled, keep):
    monkeypatch.setattr(
        doctor.importlib.machinery.PathFinder, 'find_spec', lambda *args: object() if compiled else None
    )
    monkeypatch.setattr(doctor.importlib.util, 'find_spec', lambda name: SimpleNamespace(submodule_search_locations=[]))
    assert doctor._keep('mmcv', ['mmcv', 'mmcv-lite']) == keep


def test_requirements(monkeypatch, installed):
    installed('hb-old', '1.0', 'hb_old')
    installed('onedl-thing', '1.0', 'thing')
    _declare(monkeypatch, 'hb-old>=2', 'hb-absent', 'thing', 'setuptools>=1', 'torch')
    rows, problems = doctor.requirements()
    assert [row.what for row in rows] == ['setuptools']
    old, absent = problems  # `thing` comes with a fork
    assert (old.text, old.fix) == ('hb-old 1.0 is installed, hb-old>=2 is required', "pip install 'hb-old>=2'")
    assert (absent.text, absent.fix) == ('hb-absent is missing', "pip install 'hb-absent'")


def test_the_reason_of_a_requirement_is_given(monkeypatch):
    _declare(monkeypatch, 'setuptools<1')
    _, (problem,) = doctor.requirements()
    assert 'pkg_resources' in problem.text


def test_a_broken_component_is_named_once(monkeypatch):
    monkeypatch.setattr(doctor, '_import_error', lambda module: 'ImportError: libcudart.so' if 'c' in module else '')
    _declare(monkeypatch, 'torchvision>=0.20')
    rows, (problem,) = doctor.components()
    broken = {row.what for row in rows if row.remark.endswith('cannot be imported')}
    assert {'torch', 'torchvision'} <= broken
    assert problem.text.startswith('torch ')
    assert problem.fix == "pip install --force-reinstall 'torch'"


def test_mmcv_missing(monkeypatch):
    monkeypatch.setattr(doctor, '_owners', lambda module: [])
    monkeypatch.setattr(doctor, '_import_error', lambda module: 'ModuleNotFoundError' if 'mmcv' in module else '')
    (row,), (problem,) = doctor.operators()
    assert row.version == 'missing'
    assert problem.fix == f"pip install '{doctor.LITE}'"


@pytest.mark.parametrize(('version', 'fine'), [('2.0.0', False), ('2.0.1', True), ('2.2.0', True), ('2.3.0rc1', False)])
def test_mmcv_versions(monkeypatch, version, fine):
    import mmcv

    monkeypatch.setattr(mmcv, '__version__', version)
    _, problems = doctor.operators()
    assert fine == (not any(problem.text.startswith(f'mmcv {version} is installed') for problem in problems))


@pytest.mark.parametrize(
    ('note', 'remark', 'number'),
    [
        (None, 'compiled mmcv', 0),
        ('mmcv has no compiled operators; ...', 'stand-in from torch and torchvision', 0),
        ("mmcv 2.1.0's compiled operators cannot be loaded with torch 2.14", 'stand-in from torch and torchvision', 1),
    ],
)
def test_where_operators_come_from(monkeypatch, note, remark, number):
    monkeypatch.delitem(compat.applied, 'operators', raising=False)
    if note:
        monkeypatch.setitem(compat.applied, 'operators', note)
    monkeypatch.setattr(doctor, '_import_error', lambda module: '')
    (row,), problems = doctor.operators()
    assert row.remark == remark
    assert len(problems) == number
    assert all('mmcv-lite' in problem.fix for problem in problems)


def test_gpus(monkeypatch):
    cards = [SimpleNamespace(name='H200', total_memory=139 * 2**30, major=9, minor=0)]
    cards.append(SimpleNamespace(name='P100', total_memory=16 * 2**30, major=6, minor=0))
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: len(cards))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_properties', cards.__getitem__)
    monkeypatch.setattr(doctor, '_gpu_error', lambda index: ['', 'no kernel image is available'][index])
    (cpu, one, two), (problem,) = doctor.devices()
    assert cpu.what == 'CPU'
    assert 'bfloat16' in cpu.remark
    assert (one.what, one.version, one.remark) == ('GPU 0', '139 GiB', 'H200: float32, float16, bfloat16')
    assert two.remark == 'P100: cannot be used'
    assert 'no kernel image' in problem.text
    assert 'compute capability 6.0' in problem.fix


@pytest.mark.parametrize(('cuda', 'said'), [(None, 'built for CPUs'), ('13.0', 'built for CUDA 13.0 and sees no GPU')])
def test_a_gpu_that_torch_does_not_see(monkeypatch, cuda, said):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(doctor.shutil, 'which', lambda name: '/usr/bin/nvidia-smi')
    monkeypatch.setattr(torch.version, 'cuda', cuda)
    (problem,) = doctor._unusable_gpu()
    assert said in problem.text


def test_a_failing_main_job_is_fatal(monkeypatch, capsys):
    def fail():
        raise RuntimeError('no such operator')

    monkeypatch.setattr(doctor, '_train_one_step', fail)
    monkeypatch.setattr(doctor, 'CHECKS', (doctor.python, doctor.main_job))
    assert doctor.main() == 1
    out = capsys.readouterr().out
    assert 'RuntimeError: no such operator' in out
    assert 'test_doctor.py' in out
    assert 'mmdet==3.3.0' in out
    assert out.endswith('does NOT work here.\n')


def test_other_problems_are_not(monkeypatch, capsys):
    rows, problem = [doctor.Row('tool', '1.0')], doctor.Problem('tool 1.0 is old', "pip install 'tool>=2'")
    monkeypatch.setattr(doctor, 'CHECKS', (lambda: (rows, [problem]),))
    assert doctor.main() == 0
    assert capsys.readouterr().out == (
        "tool  1.0\n\nProblem 1: tool 1.0 is old\n  Fix: pip install 'tool>=2'\n\nTraining a detector works here.\n"
    )


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


@pytest.mark.parametrize('module', ['torch', 'mmdet'])
def test_the_command_where_a_component_is_broken(tmp_path, module):
    (tmp_path / f'{module}.py').write_text('raise ImportError("built for another machine")\n')
    done = _command(PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (1, '')
    assert f'{module} ' in done.stdout
    assert done.stdout.count('cannot be imported: ImportError: built for another machine\n  Fix: pip install') == 1
    assert done.stdout.endswith('does NOT work here.\n')
