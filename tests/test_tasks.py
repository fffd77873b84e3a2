import pytest

from hybrid_backbones._tasks import is_segmentor


@pytest.mark.parametrize(
    ('cfg', 'expected'),
    [
        (dict(default_scope='mmseg', model=dict(module={})), True),
        (dict(default_scope='mmdet', model=dict(decode_head={})), False),
        (dict(model=dict(decode_head={})), True),
        (dict(model=dict(roi_head={})), False),
        (dict(default_scope=None), False),
    ],
    ids=str,
)
def test_scope_decides_before_the_head(cfg, expected):
    assert is_segmentor(cfg) is expected
