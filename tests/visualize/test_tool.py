"""tools/visualize.py: every subcommand reaches the function that it is for, with what was given."""

import runpy
from pathlib import Path

import pytest
from engine.test_runs import RECORDS, write_log

from hybrid_backbones import visualize

TOOL = Path(__file__).parents[2] / 'tools' / 'visualize.py'
LOOK = dict(checkpoint='c.pth', size=[32, 48], options=dict(window_size=3))
FLAGS = '--checkpoint c.pth --size 32 48 --backbone-options window_size=3'


def run(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr('sys.argv', [str(TOOL), *command.split()])
    runpy.run_path(str(TOOL), run_name='__main__')


@pytest.mark.parametrize(
    ('command', 'function', 'args', 'options'),
    [
        (
            'predictions a.py c.pth -o out --images folder --num-images 3 --data-root data --cfg-options x.y=1',
            'save_predictions',
            ('a.py', 'c.pth', 'out'),
            dict(images='folder', num_images=3, score_thr=0.3, data_root='data', options={'x.y': 1}),
        ),
        (f'features deit_t a.jpg -o o.png {FLAGS}', 'draw_features', ('deit_t', 'a.jpg', 'o.png'), LOOK),
        (
            f'attention deit_t a.jpg -o o.png {FLAGS} --block 3 --point 4 5',
            'draw_attention',
            ('deit_t', 'a.jpg', 'o.png'),
            dict(LOOK, block=3, point=[4, 5]),
        ),
        (
            'receptive-field deit_t cvt_13=c.pth -o o.png --size 9 8 --samples 2',
            'draw_receptive_fields',
            (['deit_t', 'cvt_13=c.pth'], 'o.png', [9, 8], 2, None),
            {},
        ),
        ('curves a b -o o.png --all', 'compare_runs', (['a', 'b'], 'o.png'), dict(everything=True)),
    ],
)
def test_arguments(monkeypatch: pytest.MonkeyPatch, command: str, function: str, args: tuple, options: dict) -> None:
    calls = []
    monkeypatch.setattr(visualize, function, lambda *args, **options: calls.append((args, options)) or [])
    run(monkeypatch, command)
    assert calls == [(args, options)]


def test_it_says_where_the_picture_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_log(tmp_path / 'run', RECORDS)
    run(monkeypatch, f'curves {tmp_path}/run -o {tmp_path}/o.png')
    assert capsys.readouterr().out.strip() == f'{tmp_path}/o.png' and (tmp_path / 'o.png').is_file()
