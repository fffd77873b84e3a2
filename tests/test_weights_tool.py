"""`tools/weights.py`: each command says what it should, and an error is one line and a non-zero status."""

import importlib.util
from pathlib import Path

import pytest
import torch

from hybrid_backbones import create_classifier
from hybrid_backbones.checkpoints import list_published
from hybrid_backbones.checkpoints.published_models import list_models

TOOL = Path(__file__).parents[1] / 'tools' / 'weights.py'


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Runs the tool; what it prints."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    spec = importlib.util.spec_from_file_location('weights_tool', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*args) -> str:
        tool.main([str(arg) for arg in args])
        return capsys.readouterr().out

    return run


@pytest.fixture
def file(tmp_path) -> Path:
    torch.save({'model': create_classifier('deit_t', num_classes=7).state_dict()}, tmp_path / 'file.pth')
    return tmp_path / 'file.pth'


def test_list(run):
    lines = run('list').splitlines()
    assert len(lines) == 1 + len(list_published()) + 3
    assert lines[2].split()[:6] == ['conv2former_t_in1k', 'ImageNet-1k', '224', '83.2', '26.7', 'Apache-2.0']
    assert lines[2].endswith('  page')
    assert run('list', 'cvt_13_in1k').rstrip().endswith('  hub, file, page')
    assert [line.split()[0] for line in run('list', 'convit*').splitlines()[1:]] == [
        'convit_t_in1k', 'convit_s_in1k', 'convit_b_in1k'
    ]  # fmt: skip
    sources = '[hub](https://huggingface.co/timm/convit_tiny.fb_in1k), [file](https://dl.fbai'
    row = f'| `convit_t_in1k` | `convit_t` | ImageNet-1k | 224 | 73.1 | 5.7 | {sources}'
    assert row in run('list', 'convit*', '--markdown')


def test_list_of_detectors(run):
    lines = run('list', '--detectors', 'cascade_*slak*').splitlines()
    assert len(lines) == 2
    assert lines[1].split()[:2] == ['cascade_slak_t_coco', 'cascade_maskrcnn_slak_t_coco']
    assert lines[1].endswith('1x  box AP 48.4, mask AP 41.8   -         file')
    assert len(run('list', '--detectors').splitlines()) == 1 + len(list_models())
    assert '050731f4' in run('list', '--detectors', 'maskrcnn_timm_convnext_t_coco_openmmlab')


def test_show_of_a_detector(run, tmp_path):
    text = run('show', 'upernet_timm_swin_b_ade20k_in22k_openmmlab')
    for part in (
        'mIoU 50.13, mIoU ms 51.9',
        'ImageNet-22k',
        'SHA-256 762e2178',
        f'{tmp_path / "home"}/hub/checkpoints/upernet_swin_base_patch4_window7_512x512_160k_ade20k_pretrain_',
        'hybrid-backbones test hybrid_backbones::upernet_timm_swin_b_ade20k.py hybrid://upernet_timm_swin_b_',
        '_ade20k_in22k_openmmlab --cfg-options model.test_cfg.mode=whole',
        "load_from = 'hybrid://upernet_timm_swin_b_ade20k_in22k_openmmlab'",
    ):
        assert part in text


def test_show(run, tmp_path):
    text = run('show', 'deit_b_distilled_in1k_384')
    for part in (
        '85.2 % on ImageNet-1k',
        '87,630,032 (classifier of 1000 classes)',
        'd0272ac0',
        f'{tmp_path / "home"}/hub/checkpoints/deit_base_distilled_patch16_384-d0272ac0.pth (downloaded on first use)',
        'hf-hub:timm/deit_base_distilled_patch16_384.fb_in1k/model.safetensors',
        'hybrid_backbones::maskrcnn_deit_b_coco.py',
        "backbone=dict(type='ViT', arch='base', distilled=True, table_size=384,\n",
        "checkpoint='hybrid://deit_b_distilled_in1k_384'))\n",
        "create_classifier('deit_b', distilled=True, table_size=384, checkpoint='hybrid://",
    ):
        assert part in text
    assert 'pwd=6ku9' in run('show', 'conv2former_n_in1k')
    assert "create_classifier('replknet_31b', num_classes=21841, checkpoint" in run('show', 'replknet_31b_in22k')


def test_what_show_prints_runs(run):
    import hybrid_backbones

    for name in ('deit_b_distilled_in1k_384', 'hornet_l_gf_in22k_384', 'tiny_moat_0_no_pe_in1k_256'):
        lines = run('show', name).splitlines()
        call = next(line.strip() for line in lines if 'create_backbone' in line).replace(f"'hybrid://{name}'", 'None')
        config = ''.join(lines[lines.index('In a config:') + 1 : lines.index('Without one:')])
        with torch.device('meta'):
            eval(call, dict(create_backbone=hybrid_backbones.create_backbone))
        assert eval(f'dict({config})')['backbone']['init_cfg']['checkpoint'] == f'hybrid://{name}'


def test_check_and_convert(run, file, tmp_path):
    assert 'deit_t (ViT): 152 of 152 keys' in run('check', file)
    assert 'num_classes=7' in run('check', file)
    assert 'written to' in run('convert', file, '-o', tmp_path / 'out.safetensors')
    assert 'deit_t (ViT): 152 of 152 keys' in run('check', tmp_path / 'out.safetensors')
    with pytest.raises(SystemExit, match=r'FileExistsError: .*--force writes over it'):
        run('convert', file, '-o', tmp_path / 'out.safetensors')
    run('convert', file, '-o', tmp_path / 'out.safetensors', '--force')


def test_a_file_of_no_network(run, tmp_path):
    torch.save({'layer1.0.conv1.weight': torch.zeros(4, 4)}, tmp_path / 'resnet.pth')
    text = run('check', tmp_path / 'resnet.pth')
    assert '1 tensors, 16 numbers' in text
    assert 'No registered network is like it. Its first keys: layer1.0.conv1.weight' in text


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['show', 'convnext'], 'no published file hybrid://convnext'),
        (['list', 'resnet*'], 'no published file is named'),
        (['list', '--detectors', 'resnet*'], 'no published detector or segmentor is named'),
        (['check', 'nowhere.pth'], 'no checkpoint at nowhere.pth'),
        (['check', 'hybrid://slak_t_in1k'], r'fetched by hand(.|\n)*slak_t_in1k\.pth'),
        (['convert', 'nowhere.pth', '-o', 'out.onnx'], 'neither a .safetensors nor a .pth'),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)
def test_errors_are_one_line_and_a_status(run, args, message):
    with pytest.raises(SystemExit, match=message) as error:
        run(*args)
    assert str(error.value.code).startswith(('CheckpointError: ', 'ByHandError: ', 'ValueError: '))
