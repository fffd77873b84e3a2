"""mmcv's compiled operators, from torch and torchvision, for machines where mmcv was installed without them.

`make_module()` builds a stand-in for the extension module `mmcv._ext`. The functions have the names, arguments and
in-place outputs of mmcv's C++ (interface of mmcv 2.1 and 2.2), so that mmcv's own Python, `mmcv.ops`, calls them
without a change. The arithmetic follows mmcv's kernels; where torchvision has the same kernel, it is used.
"""

from collections.abc import Callable
from types import ModuleType

import torch

from . import attention, boxes, carafe, deform, deform_roi, focal, masked_conv, psamask, roi, rotated, sync_bn

OPERATORS = (
    boxes.nms,
    boxes.softnms,
    boxes.nms_match,
    boxes.bbox_overlaps,
    rotated.box_iou_rotated,
    roi.roi_align_forward,
    roi.roi_align_backward,
    roi.roi_pool_forward,
    roi.roi_pool_backward,
    carafe.carafe_forward,
    carafe.carafe_backward,
    carafe.carafe_naive_forward,
    carafe.carafe_naive_backward,
    deform.deform_conv_forward,
    deform.deform_conv_backward_input,
    deform.deform_conv_backward_parameters,
    deform.modulated_deform_conv_forward,
    deform.modulated_deform_conv_backward,
    deform_roi.deform_roi_pool_forward,
    deform_roi.deform_roi_pool_backward,
    masked_conv.masked_im2col_forward,
    masked_conv.masked_col2im_forward,
    psamask.psamask_forward,
    psamask.psamask_backward,
    focal.sigmoid_focal_loss_forward,
    focal.sigmoid_focal_loss_backward,
    focal.softmax_focal_loss_forward,
    focal.softmax_focal_loss_backward,
    sync_bn.sync_bn_forward_mean,
    sync_bn.sync_bn_forward_var,
    sync_bn.sync_bn_forward_output,
    sync_bn.sync_bn_backward_param,
    sync_bn.sync_bn_backward_data,
    attention.ms_deform_attn_forward,
    attention.ms_deform_attn_backward,
)


class MissingOperatorError(NotImplementedError):
    """An operator of mmcv that has no stand-in was called."""


def make_module() -> ModuleType:
    """A stand-in for `mmcv._ext`; operators that it lacks exist, and raise `MissingOperatorError` when called."""
    module = ModuleType('mmcv._ext', __doc__)
    for operator in (*OPERATORS, get_compiler_version, get_compiling_cuda_version):
        setattr(module, operator.__name__, operator)
    module.__getattr__ = _missing
    return module


def get_compiler_version() -> str:
    """What environment reports show as mmcv's compiler."""
    return 'none (operators from torchvision, by hybrid_backbones)'


def get_compiling_cuda_version() -> str:
    """What environment reports show as the CUDA of mmcv's compiler: torch's, whose kernels run."""
    return torch.version.cuda or 'none'


def _missing(name: str) -> Callable:
    """Module-level `__getattr__`: mmcv asks for every operator when imported, whether or not it is ever used."""
    if name.startswith('_'):
        raise AttributeError(f"module 'mmcv._ext' has no attribute '{name}'")

    def missing(*args, **kwargs):
        provided = ', '.join(operator.__name__ for operator in OPERATORS)
        raise MissingOperatorError(
            f"mmcv's operator '{name}' needs compiled mmcv, which is not installed here. Install the package mmcv in "
            'place of mmcv-lite, with its operators: a wheel that matches your torch and CUDA (`mim install mmcv`), or '
            'from source (`MMCV_WITH_OPS=1 pip install --no-build-isolation --no-binary mmcv mmcv`). '
            f'Available without compiling: {provided}.'
        )

    missing.__name__ = missing.__qualname__ = name
    return missing
