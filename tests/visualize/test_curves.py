"""Curves: a line for every run, in the plots that it belongs to."""

from pathlib import Path

import pytest
from engine.test_runs import RECORDS, train, write_log
from visualize.pictures import colour_share, pixels

from hybrid_backbones.visualize import compare_runs, draw_curves, final_metrics
from hybrid_backbones.visualize.curves import run_labels

BLUE, ORANGE = (31, 119, 180), (255, 127, 14)


def test_curves_are_drawn(tmp_path: Path) -> None:
    picture = pixels(draw_curves(write_log(tmp_path, RECORDS), tmp_path / 'new' / 'curves.png'))
    half = picture.shape[1] // 2
    for side in (picture[:, :half], picture[:, half:]):
        assert colour_share(side, BLUE) > 1e-4, 'first line of either side, in Matplotlib blue'


def test_run_without_validation_is_drawn(tmp_path: Path) -> None:
    scalars = write_log(tmp_path, RECORDS[:2])
    assert draw_curves(scalars, tmp_path / 'curves.png').is_file()
    assert final_metrics(scalars) == {}


def test_several_runs_share_the_plots_that_they_have(tmp_path: Path) -> None:
    write_log(tmp_path / 'a', RECORDS)
    write_log(tmp_path / 'b', [train(1, 3.0), train(4, 2.0)])
    out = compare_runs([tmp_path / 'a', tmp_path / 'b'], tmp_path / 'both.png')
    # Loss, AP and AP50 side by side above the legend; only the first run has been validated.
    picture = pixels(out)
    above = picture[: int(0.85 * len(picture))]
    thirds = [above[:, i * above.shape[1] // 3 : (i + 1) * above.shape[1] // 3] for i in range(3)]
    assert all(colour_share(part, BLUE) > 1e-4 for part in thirds)
    assert [colour_share(part, ORANGE) > 1e-4 for part in thirds] == [True, False, False]
    # Six plots in two rows, with the parts of the loss and AP of large objects.
    everything = pixels(compare_runs([tmp_path / 'a', tmp_path / 'b'], tmp_path / 'all.png', everything=True))
    assert everything.shape[0] > 1.7 * picture.shape[0]


def test_labels_tell_folders_apart() -> None:
    assert run_labels(['runs/a', 'runs/b/']) == ['a', 'b']
    assert run_labels(['x/1/run', 'x/2/run', 'x/other']) == ['1/run', '2/run', 'other']


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    write_log(tmp_path / 'a', RECORDS)
    with pytest.raises(FileNotFoundError, match=rf'no log of a run in {tmp_path / "b"}'):
        compare_runs([tmp_path / 'a', tmp_path / 'b'], tmp_path / 'curves.png')
    assert not (tmp_path / 'curves.png').exists()
    with pytest.raises(ValueError, match=r'curves\.jpg: pictures are written as PNG'):
        compare_runs([tmp_path / 'a'], tmp_path / 'curves.jpg')
