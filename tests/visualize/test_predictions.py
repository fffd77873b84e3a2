"""Predictions through mmdet's and mmseg's visualizers: of a dataset beside the truth, of a folder alone."""

import shutil
from pathlib import Path

import pytest
from end_to_end.test_tools import save_weights, write
from end_to_end.tiny import DETECTOR, SEGMENTOR
from mmengine.visualization import Visualizer
from visualize.pictures import pixels

from hybrid_backbones.datasets.checks import DataError
from hybrid_backbones.datasets.shapes import ensure_shapes
from hybrid_backbones.visualize import save_predictions
from hybrid_backbones.visualize.predictions import png_names


@pytest.fixture(scope='module')
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_shapes(tmp_path_factory.mktemp('shapes') / 'data', num_train=2, num_val=3, size=64)


@pytest.fixture(scope='module', params=[DETECTOR, SEGMENTOR], ids=['detector', 'segmentor'])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp('model')
    config = write(folder, 'model.py', request.param)
    return config, save_weights(config, folder / 'weights.pth')


def test_a_dataset_beside_its_truth(model: tuple[Path, Path], shapes: Path, tmp_path: Path) -> None:
    written = save_predictions(*model, tmp_path / 'out', num_images=2, data_root=str(shapes))
    assert sorted((tmp_path / 'out').iterdir()) == written and len(written) == 2
    for path in written:
        picture = pixels(path)
        assert picture.shape == (64, 128, 3)
        image = next(shapes.rglob(f'val*/{path.stem}.jpg'))
        assert (abs(picture[:, :64].astype(int) - pixels(image)).max(-1) > 40).mean() > 0.01, 'the truth is drawn'
    assert not Visualizer.check_instance_created('predictions'), 'hooks of later runs draw with their own'


def test_a_folder_of_images_alone(model: tuple[Path, Path], shapes: Path, tmp_path: Path, photo: Path) -> None:
    folder = tmp_path / 'images'
    (folder / 'below').mkdir(parents=True)
    shutil.copy(min(shapes.rglob('val*/*.jpg')), folder / 'shapes.jpg')
    shutil.copy(photo, folder / 'below' / 'photo.jpg')
    # Neither the dataset's images nor its annotations are needed.
    options = dict(images=folder, data_root=str(tmp_path / 'absent'))
    written = save_predictions(*model, tmp_path / 'out', **options)
    assert written == [tmp_path / 'out' / 'below' / 'photo.png', tmp_path / 'out' / 'shapes.png']
    assert pixels(written[0]).shape == pixels(photo).shape
    assert pixels(written[1]).shape == (64, 64, 3)
    (folder / 'z.jpg').write_text('not an image')
    with pytest.raises(OSError, match=r'LoadImageFromFile could not read .*z\.jpg'):
        save_predictions(*model, tmp_path / 'more', **options)


def test_wrong_requests(model: tuple[Path, Path], shapes: Path, tmp_path: Path) -> None:
    config, checkpoint = model
    with pytest.raises(FileNotFoundError, match=r'no checkpoint absent\.pth'):
        save_predictions(config, 'absent.pth', tmp_path / 'out')
    with pytest.raises(ValueError, match='num_images=0'):
        save_predictions(config, checkpoint, tmp_path / 'out', num_images=0)
    with pytest.raises(FileNotFoundError, match='no images in'):
        save_predictions(config, checkpoint, tmp_path / 'out', images=tmp_path)
    with pytest.raises(DataError, match='missing or incomplete'):
        save_predictions(config, checkpoint, tmp_path / 'out', data_root=str(tmp_path))
    other = write(tmp_path, 'other.py', config.read_text().replace('depths=(1, 1, 2, 1)', 'depths=(1, 1, 3, 1)'))
    with pytest.raises(ValueError, match=r'weights\.pth is a checkpoint of another model'):
        save_predictions(other, checkpoint, tmp_path / 'out', data_root=str(shapes))
    assert not (tmp_path / 'out').exists()


def test_names_do_not_clash() -> None:
    names = png_names([Path('d/a.jpg'), Path('d/a.png'), Path('d/e/a.jpg'), Path('d/b.c.jpg')], Path('out'))
    assert [str(name) for name in names] == ['out/a.jpg.png', 'out/a.png.png', 'out/e/a.png', 'out/b.c.png']
