"""Layers of `mmcv.ops` that only run with an operator that has no stand-in: refused when they are built."""

import sys
from collections.abc import Callable
from types import ModuleType

# file.Class within mmcv.ops, and the operator that it needs.
LAYERS = {
    'bezier_align.BezierAlign': 'bezier_align_forward',
    'border_align.BorderAlign': 'border_align_forward',
    'correlation.Correlation': 'correlation_forward',
    'group_points.QueryAndGroup': 'ball_query_forward',
    'points_sampler.PointsSampler': 'furthest_point_sampling_forward',
    'prroi_pool.PrRoIPool': 'prroi_pool_forward',
    'riroi_align_rotated.RiRoIAlignRotated': 'riroi_align_rotated_forward',
    'roi_align_rotated.RoIAlignRotated': 'roi_align_rotated_forward',
    'roiaware_pool3d.RoIAwarePool3d': 'roiaware_pool3d_forward',
    'roipoint_pool3d.RoIPointPool3d': 'roipoint_pool3d_forward',
    'scatter_points.DynamicScatter': 'dynamic_point_to_voxel_forward',
    'sparse_conv.SparseConvolution': 'indice_conv_forward',
    'sparse_pool.SparseMaxPool': 'indice_maxpool_forward',
    'tin_shift.TINShift': 'tin_shift_forward',
    'voxelize.Voxelization': 'hard_voxelize_forward',
}


def refuse_layers(stand_in: ModuleType) -> None:
    """Let the constructors of `LAYERS` raise `MissingOperatorError`; `mmcv.ops` must have been imported."""
    for layer, operator in LAYERS.items():
        file, name = layer.split('.')
        getattr(sys.modules[f'mmcv.ops.{file}'], name).__init__ = _constructor(getattr(stand_in, operator))


def _constructor(missing: Callable) -> Callable:
    def __init__(self, *args, **kwargs):
        missing()

    return __init__
