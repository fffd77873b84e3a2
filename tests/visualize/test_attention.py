"""Pictures of attention: a panel for every head, marked where the query is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from visualize.pictures import colour_share, pixels

from hybrid_backbones.visualize import draw_attention
from hybrid_backbones.visualize.attention import _panels
from hybrid_backbones.visualize.attention_weights import AttentionMap

CYAN = (0, 255, 255)
PLAIN = dict(depth=4, dim=32, heads=4)


def test_heads_are_side_by_side(photo: Path, tmp_path: Path) -> None:
    options = dict(arch=dict(**PLAIN, mlp_ratio=2, stem=()))
    draw = dict(size=(120, 200), options=options)
    token = pixels(draw_attention('deit_t', photo, tmp_path / 'token.png', **draw))
    point = pixels(draw_attention('deit_t', photo, tmp_path / 'point.png', point=(60, 40), **draw))
    assert token.shape[1] > 3 * token.shape[0], 'image and four heads in one row'
    assert colour_share(token, CYAN) == 0 and colour_share(point, CYAN) > 0
    # The mark at a fifth of the width of each of five pictures.
    columns = np.flatnonzero((np.abs(point.astype(int) - CYAN).max(-1) < 60).any(0)) / point.shape[1] * 5
    assert set(columns.astype(int)) == {0, 1, 2, 3, 4}
    assert abs(np.mean(columns % 1) - 0.2) < 0.05


def test_gates_have_three_pictures_a_head(photo: Path, tmp_path: Path) -> None:
    options = dict(arch=dict(**PLAIN, local=2))
    gated = pixels(draw_attention('convit_t', photo, tmp_path / 'a.png', 0, size=(96, 64), options=options))
    plain = pixels(draw_attention('convit_t', photo, tmp_path / 'b.png', 3, size=(96, 64), options=options))
    assert gated.shape[1] > 1.3 * plain.shape[1] and gated.shape[0] > 1.5 * plain.shape[0]


def test_titles_say_what_the_map_cannot_show() -> None:
    weights = torch.full((1, 2, 2), 0.2)
    found = AttentionMap('attn', None, torch.full((1, 1), 0.2), weights, torch.zeros(5, 1, 3), {}, None)
    ((title, drawn),) = _panels(found)
    assert title == 'head 0, up to 0.2\n20.0% on class token' and drawn.tolist() == weights[0].tolist()
    parts = dict(content=weights, position=weights / 2)
    found = AttentionMap('attn', (0, 0), torch.zeros(1, 0), weights, torch.zeros(4, 1, 3), parts, torch.tensor([0.75]))
    assert [title for title, _ in _panels(found)] == [
        'head 0, up to 0.2\ncontent',
        'head 0, up to 0.1\nposition',
        'head 0, up to 0.2\n75% position',
    ]


def test_wrong_requests(photo: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out.png'
    tiny = dict(arch=dict(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), kernel_size=5))
    with pytest.raises(ValueError, match='Conv2Former has no attention layer'):
        draw_attention('conv2former_n', photo, out, options=tiny, size=(64, 64))
    small = dict(options=dict(arch=dict(**PLAIN, mlp_ratio=2, stem=())), size=(64, 64))
    with pytest.raises(ValueError, match='block 4 of ViT'):
        draw_attention('deit_t', photo, out, block=4, **small)
    with pytest.raises(ValueError, match=r'point \(64, 0\) lies outside'):
        draw_attention('deit_t', photo, out, point=(64, 0), **small)
    with pytest.raises(FileNotFoundError, match='no image'):
        draw_attention('deit_t', tmp_path / 'absent.jpg', out)
    assert not out.exists()
