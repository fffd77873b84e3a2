"""The commands of docs/own_data.md, as they stand there: on drawn data in this process, on real data in their own."""

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import NO_REAL_IMAGES, REAL_IMAGES
from datasets.exports import write_masks, write_yolo

ROOT = Path(__file__).parents[2]
# Processes that load data take longer to start than these data to load.
NO_WORKERS = ('num_workers=0', 'persistent_workers=False')
CLASSES = 'sky building pole road pavement tree sign_symbol fence car pedestrian bicyclist'


def commands(name: str) -> Iterator[str]:
    """The commands that are about the config `name`, in the order of the page."""
    page = (ROOT / 'docs' / 'own_data.md').read_text(encoding='utf-8')
    for block in re.findall(r'```bash\n(.+?)```', page, re.DOTALL):
        yield from (line for line in block.splitlines() if f'{name}.py' in line)


def prepare(folder: Path) -> None:
    """What a clone has, in a folder that may be written to."""
    for part in ('tools', 'configs'):
        (folder / part).symlink_to(ROOT / part)


def arguments(line: str, folder: Path, options: dict[str, str]) -> list[str]:
    """Of a command: the tool, and its arguments with `options` of that tool added and patterns resolved."""
    python, tool, *given = shlex.split(line)
    assert python == 'python'
    given += shlex.split(options.get(Path(tool).stem, ''))
    return [tool, *(str(next(folder.glob(word))) if '*' in word else word for word in given)]


def check_results(folder: Path, name: str, width: int) -> None:
    assert (folder / f'{name}.html').stat().st_size > 10_000
    drawn = sorted((folder / 'drawn' / name).glob('*.png'))
    assert drawn
    picture = cv2.imdecode(np.fromfile(drawn[0], np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1] >= 2 * width  # truth and prediction side by side
    assert picture.std() > 10


@pytest.mark.parametrize('name', ['cats', 'streets'])
def test_tutorial(name, tmp_path, monkeypatch, capsys):
    write_yolo(tmp_path / 'exports' / 'cats')
    write_masks(tmp_path / 'exports' / 'streets')
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    small = dict(
        cats='rpn_head.num_convs=1 model.roi_head.bbox_head.fc_out_channels=16 model.test_cfg.rpn.max_per_img=20 '
        'model.train_cfg.rpn_proposal.max_per_img=20 model.test_cfg.rcnn.score_thr=0.0',
        streets='decode_head.channels=64 model.auxiliary_head.channels=64',
    )
    loaders = [f'{split}_dataloader.{key}' for split in ('train', 'val', 'test') for key in NO_WORKERS]
    settings = ' '.join([f'--cfg-options model.{small[name]}', *loaders])
    options = dict(
        new_config='--size 64 --batch-size 2 --iterations 2',
        train=f'{settings} train_cfg.val_interval=2 --no-mallopt',
        test=f'{settings} --no-mallopt',
        visualize=settings,
    )
    for line in commands(name):
        tool, *rest = arguments(line, tmp_path, options)
        monkeypatch.setattr(sys, 'argv', [tool, *rest])
        try:
            runpy.run_path(tool, run_name='__main__')
        except SystemExit as end:
            assert not end.code, capsys.readouterr().out
    check_results(tmp_path, name, 80)


@pytest.mark.slow
@pytest.mark.skipif(not REAL_IMAGES.is_dir(), reason=NO_REAL_IMAGES)
@pytest.mark.parametrize('name, source, width', [('cats', 'pennfudan', 300), ('streets', 'camvid', 400)])
def test_tutorial_on_real_images(name, source, width, tmp_path):
    (tmp_path / 'exports').mkdir()
    shutil.copytree(REAL_IMAGES / source, tmp_path / 'exports' / name)
    prepare(tmp_path)
    options = dict(
        new_config='--size 128 --batch-size 2 --iterations 40',
        # Validated once: a detector that has learned little finds a hundred objects in each image.
        train='--cfg-options train_cfg.val_interval=40',
        visualize='--num-images 4 --score-thr 0.05',
    )
    for line in commands(name):
        line = line.replace('road car tree', CLASSES)
        done = subprocess.run(
            [sys.executable, *arguments(line, tmp_path, options)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f'{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}'
    check_results(tmp_path, name, width)
