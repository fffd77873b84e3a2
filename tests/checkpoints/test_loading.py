"""Published files load as they are, wholly or not at all."""

import argparse
import functools
import http.server
import logging
import os
import threading

import numpy as np
import pytest
import torch
from goldens import Golden
from mmengine.logging import HistoryBuffer, MMLogger
from safetensors.torch import save_file

from hybrid_backbones import create_backbone
from hybrid_backbones.checkpoints import CheckpointError, load_pretrained, read_state_dict

TINY = dict(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), kernel_size=3)


def build(**options):
    return create_backbone('conv2former_n', arch=options.pop('arch', TINY), **options)


@pytest.fixture
def official() -> dict[str, torch.Tensor]:
    """A state dict under the official keys, classification head included."""
    torch.manual_seed(7)
    state = {
        k: torch.randn_like(v) if v.is_floating_point() else v for k, v in build(out_norm=False).state_dict().items()
    }
    return {**state, 'head.0.weight': torch.zeros(4, 32, 1, 1), 'pred.bias': torch.zeros(4)}


def assert_loaded(network, official):
    own = network.state_dict()
    for key, value in official.items():
        if not key.startswith(('head', 'pred')):
            assert torch.equal(own[key], value), key


WRAPPINGS = {
    'flat': lambda s: s,
    'model': lambda s: {'model': s, 'epoch': 3, 'args': argparse.Namespace(lr=1e-3)},
    'model_ema': lambda s: {'model_ema': s, 'model': {k: v * 0 for k, v in s.items()}},
    'state_dict': lambda s: {'state_dict': s, 'meta': {'epoch': 1}},
    'ddp': lambda s: {'state_dict': {f'module.{k}': v for k, v in s.items()}},
    'detector': lambda s: {
        'state_dict': {**{f'backbone.{k}': v for k, v in s.items()}, 'neck.convs.0.weight': torch.zeros(2)}
    },
    'ddp of a detector': lambda s: {'state_dict': {f'module.backbone.{k}': v for k, v in s.items()}},
}


@pytest.mark.parametrize('wrapping', WRAPPINGS)
def test_every_wrapping_loads(tmp_path, official, wrapping):
    torch.save(WRAPPINGS[wrapping](official), tmp_path / 'file.pth')
    assert_loaded(build(checkpoint=tmp_path / 'file.pth'), official)


def test_a_checkpoint_that_a_run_of_mmengine_wrote_loads(tmp_path, official):
    history = HistoryBuffer(np.arange(3.0), np.ones(3))
    wrote = {'state_dict': {f'backbone.{k}': v for k, v in official.items()}, 'message_hub': {'log_scalars': history}}
    torch.save(wrote, tmp_path / 'epoch_1.pth')
    assert_loaded(build(checkpoint=tmp_path / 'epoch_1.pth'), official)


def test_safetensors_load(tmp_path, official):
    save_file({f'module.{k}': v.contiguous() for k, v in official.items()}, tmp_path / 'file.safetensors')
    assert_loaded(build(checkpoint=tmp_path / 'file.safetensors'), official)


def test_a_url_is_downloaded_once(tmp_path, official, monkeypatch):
    (tmp_path / 'site').mkdir()
    torch.save(official, tmp_path / 'site' / 'file.pth')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / 'site'))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f'http://127.0.0.1:{server.server_port}/file.pth'
        assert_loaded(build(checkpoint=url), official)
        server.shutdown()
    assert_loaded(build(checkpoint=url), official)  # the server is gone
    missing = url.replace('file.pth', 'other.pth')
    with pytest.raises(CheckpointError, match=r'cannot download .*other\.pth'):
        build(checkpoint=missing)


def test_files_of_one_name_in_two_repositories_are_two_files(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    for number, repository in enumerate(('first', 'second')):
        (tmp_path / 'site' / repository).mkdir(parents=True)
        save_file({'weight': torch.full((1,), float(number))}, tmp_path / 'site' / repository / 'model.safetensors')
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / 'site'))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        site = f'http://127.0.0.1:{server.server_port}'
        values = [read_state_dict(f'{site}/{name}/model.safetensors')[0]['weight'] for name in ('first', 'second')]
        server.shutdown()
    assert torch.cat(values).tolist() == [0, 1]


def test_the_report_counts_what_matched(tmp_path, official):
    torch.save({'model': official}, tmp_path / 'file.pth')
    network = build()
    report = load_pretrained(network, tmp_path / 'file.pth')
    norms = sum(p.numel() for p in network.out_norms.parameters())
    assert report.total == sum(p.numel() for p in network.parameters())
    assert report.matched == report.total - norms
    assert report.ignored == ('head.0.weight', 'pred.bias')
    assert len(report.initial) == 8
    assert 'ignored head (1), pred (1); left at initialisation out_norms (8)' in str(report)


def test_the_report_is_one_line_of_the_log(tmp_path, official):
    torch.save({'model': official}, tmp_path / 'file.pth')
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    build(checkpoint=tmp_path / 'file.pth')
    logger.removeHandler(handler)
    (line,) = (record.getMessage() for record in records)
    assert 'file.pth[model]' in line
    assert 'parameters matched' in line


def test_stages_that_are_not_built_are_ignored(tmp_path, official):
    torch.save(official, tmp_path / 'file.pth')
    network = build(checkpoint=tmp_path / 'file.pth', out_indices=(0, 2))
    assert torch.equal(network.stages[2][1].mlp.fc1.weight, official['stages.2.1.mlp.fc1.weight'])


def test_official_keys_of_the_golden_load(tmp_path):
    golden = Golden('conv2former_n_224x224')
    torch.save({'model': golden.state_dict()}, tmp_path / 'file.pth')
    report = load_pretrained(create_backbone('conv2former_n', out_norm=False), tmp_path / 'file.pth')
    assert report.matched == report.total == 13_052_640
    assert not report.initial


@pytest.mark.parametrize(
    ('arch', 'expected'),
    [
        (dict(TINY, depths=(1, 1, 3, 1)), r'only in the network: stages\.2\.2\.'),
        (dict(TINY, depths=(1, 1, 1, 1)), r'only in the file: stages\.2\.1\.'),
        (dict(TINY, kernel_size=5), r'\(8, 1, 3, 3\) in the file, \(8, 1, 5, 5\) here'),
        (dict(TINY, dims=(8, 16, 24, 40)), r'of another shape'),
    ],
    ids=['deeper', 'shallower', 'kernel', 'width'],
)
def test_another_size_is_an_error_and_changes_nothing(tmp_path, official, arch, expected):
    torch.save(official, tmp_path / 'file.pth')
    network = build(arch=arch)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=expected):
        load_pretrained(network, tmp_path / 'file.pth')
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_another_family_is_an_error_that_names_both_sides(tmp_path):
    torch.save({'layer1.0.conv1.weight': torch.zeros(4)}, tmp_path / 'resnet.pth')
    with pytest.raises(CheckpointError, match=r'0 of its 1 keys(.|\n)*layer1\.0\.conv1(.|\n)*downsample_layers\.0'):
        build(checkpoint=tmp_path / 'resnet.pth')


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('share', [0.0, 0.3, 0.98])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, official, suffix, share):
    path = tmp_path / f'file{suffix}'
    if suffix == '.pth':
        torch.save(official, path)
    else:
        save_file({k: v.contiguous() for k, v in official.items()}, path)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(CheckpointError, match=r'file\.\w+ (is damaged|was not read)'):
        build(checkpoint=path)


def test_a_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'exploded'),)

    torch.save({'model': {'weight': torch.zeros(1)}, 'args': Bomb()}, tmp_path / 'bomb.pth')
    with pytest.raises(CheckpointError, match='could run code'):
        read_state_dict(tmp_path / 'bomb.pth')
    assert not (tmp_path / 'exploded').exists()


@pytest.mark.parametrize('content', [{'epoch': 3}, [torch.zeros(1)]], ids=['no tensors', 'a list'])
def test_a_file_without_weights_is_an_error(tmp_path, content):
    torch.save(content, tmp_path / 'file.pth')
    with pytest.raises(CheckpointError, match='tensors by name'):
        build(checkpoint=tmp_path / 'file.pth')


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(CheckpointError, match=r'no checkpoint at .*nowhere\.pth'):
        build(checkpoint=tmp_path / 'nowhere.pth')
