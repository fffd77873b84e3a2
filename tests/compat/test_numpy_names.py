"""mmdet's YouTube-VIS evaluation runs on a NumPy without `np.float`."""

import numpy as np
from mmdet.evaluation.functional import ytviseval


def test_np_float_is_there_and_only_there():
    assert ytviseval.np.zeros(2).astype(ytviseval.np.float).dtype == np.float64
    assert not hasattr(np, 'float')
