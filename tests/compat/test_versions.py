"""mmcv 2.2 under mmdet and mmsegmentation, which refuse it by its number."""

import textwrap

import mmdet
import pytest

pytestmark = pytest.mark.skipif(
    not hasattr(mmdet, 'mmcv_version'), reason='the onedl forks do not look at the number of mmcv'
)

CODE = """
    import sys
    import mmcv
    mmcv.__version__ = sys.argv[1]
    import hybrid_backbones
    try:
        import mmdet, mmseg
        print('accepted', mmdet.mmcv_version[:2], mmseg.mmcv_version[:2])
    except AssertionError:
        print('refused')
    print(mmcv.__version__, 'versions' in hybrid_backbones.compat.applied)
"""


@pytest.mark.parametrize(
    ('version', 'verdict'),
    [
        ('2.1.0', 'accepted (2, 1) (2, 1)\n2.1.0 False\n'),
        ('2.2.0', 'accepted (2, 1) (2, 1)\n2.2.0 True\n'),
        ('2.3.0', 'refused\n2.3.0 False\n'),
        ('1.7.0', 'refused\n1.7.0 False\n'),
    ],
)
def test_only_2_2_is_let_through(fresh, version, verdict):
    assert fresh(textwrap.dedent(CODE), version) == verdict
