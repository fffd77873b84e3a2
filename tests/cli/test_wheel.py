"""Installed from a wheel, without the clone: the commands work in an empty folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

ROOT = Path(__file__).parents[2]
LOADER = {'num_workers': 0, 'persistent_workers': False}
QUICK = [
    'train_cfg.max_iters=4',
    'train_cfg.val_interval=4',
    'default_hooks.logger.interval=1',
    'val_dataloader.dataset.indices=4',
    *(f'{split}_dataloader.{key}={value}' for split in ('train', 'val') for key, value in LOADER.items()),
]


@pytest.fixture(scope='module')
def command(tmp_path_factory) -> Callable[..., str]:
    """`hybrid-backbones` of a wheel, in an environment that has the rest from this one; it gives what was printed."""
    folder = tmp_path_factory.mktemp('wheel')
    source, venv, empty = folder / 'source', folder / 'venv', folder / 'empty'
    for path in (source, empty):
        path.mkdir()
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, source)
    for name in ('hybrid_backbones', 'configs'):
        shutil.copytree(ROOT / name, source / name, symlinks=True)
    pip = [sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check']
    subprocess.run([*pip, 'wheel', '--no-deps', '--no-build-isolation', '-w', folder, source], check=True)
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', venv], check=True)
    paths = dict(base=str(venv), platbase=str(venv))
    Path(sysconfig.get_path('purelib', vars=paths), 'rest.pth').write_text(sysconfig.get_path('purelib') + '\n')
    scripts = Path(sysconfig.get_path('scripts', vars=paths))
    wheel = next(folder.glob('*.whl'))
    subprocess.run([*pip, '--python', scripts / 'python', 'install', '--no-deps', wheel], check=True)
    env = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}

    def run(*words: str) -> str:
        line = [str(scripts / 'hybrid-backbones'), *words]
        done = subprocess.run(line, cwd=empty, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert str(ROOT) not in done.stdout + done.stderr
        return done.stdout

    run.folder = empty
    return run


@pytest.mark.slow
def test_trained_from_an_empty_folder_to_pictures(command):
    command('train', 'hybrid_backbones::maskrcnn_conv2former_n_shapes.py', '--cfg-options', *QUICK)
    printed = command('demo', 'work_dirs/maskrcnn_conv2former_n_shapes', '--num-images', '2')
    pictures = [line.strip() for line in printed.partition('Pictures:\n')[2].splitlines()]
    assert len(pictures) == 3
    assert all(cv2.imread(str(command.folder / picture)).std() > 10 for picture in pictures)


@pytest.mark.slow
def test_other_commands_read_packaged_configs(command):
    command('swap', 'hybrid_backbones::upernet_cvt_13_ade20k.py', '--backbone', 'conv2former_n', '-o', 'swapped.py')
    assert "_base_ = 'hybrid_backbones::upernet_cvt_13_ade20k.py'" in (command.folder / 'swapped.py').read_text()
    assert 'upernet' in command('cost', '--config', 'swapped.py', 'hybrid_backbones::upernet_deit_t_ade20k.py')
    assert command('transfer', 'status', '--tier', 'smoke').endswith(' waiting\n')
