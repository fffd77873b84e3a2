"""The command that measures a GPU, at tiny sizes on the CPU."""

import json
import sys

import pytest
import torch

from hybrid_backbones.profiling import gpu

SCALE = gpu.Scale('cpu', dry=True)


@pytest.fixture
def jobs(monkeypatch) -> list[gpu.Job]:
    """The first and the last job of every section, of one network each."""
    monkeypatch.setattr(gpu, 'networks', lambda: ['conv2former_n'])
    monkeypatch.setattr(gpu, 'SIZE_OF_SWIN_T', ('conv2former_n',))
    monkeypatch.setattr(gpu, 'COMPARATORS', ())
    monkeypatch.setattr(gpu, 'IN_WHOLE_MODELS', ('conv2former_n',))
    every = list(gpu.jobs(SCALE))
    sections = [[job for job in every if job.section == section] for section in gpu.TITLES]
    return [job for own in sections for job in (own[0], own[-1])]


def run(monkeypatch, folder, *options: str) -> tuple[dict, str]:
    monkeypatch.setattr(sys, 'argv', ['gpu', str(folder), *options])
    gpu.main()
    return json.loads((folder / 'gpu.json').read_text()), (folder / 'gpu.md').read_text()


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason='is measured on the CPU')
def test_a_dry_run_fills_every_table(tmp_path, monkeypatch, jobs):
    monkeypatch.setattr(gpu, 'jobs', lambda scale: jobs)
    contents, page = run(monkeypatch, tmp_path, '--dry-run')
    assert len(contents['rows']) == len(jobs) and not contents['unmeasured']
    # Flash attention takes no bias.
    assert [row for row in contents['rows'] if 'error' in row and row.get('backend') != 'FLASH_ATTENTION'] == []
    assert 'A dry run' in page and all(f'## {title}' in page for title in gpu.TITLES.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason='is measured on the CPU')
def test_a_stopped_run_keeps_its_rows_and_lists_the_rest(tmp_path, monkeypatch):
    def stop() -> dict:
        raise KeyboardInterrupt

    measured, stopped = (gpu.Job('backbones', dict(name=n), f) for n, f in (('a', lambda: dict(ms=1)), ('b', stop)))
    monkeypatch.setattr(gpu, 'jobs', lambda scale: [measured, stopped])
    contents, page = run(monkeypatch, tmp_path, '--dry-run')
    assert contents['rows'] == [dict(section='backbones', name='a', ms=1)]
    assert contents['unmeasured'] == [dict(section='backbones', name='b')]
    assert '1 not measured' in page


@pytest.mark.skipif(torch.cuda.is_available(), reason='needs a machine without GPU')
def test_without_a_gpu_it_says_what_to_do(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path)
    assert 'PyTorch sees no NVIDIA GPU' in capsys.readouterr().err
