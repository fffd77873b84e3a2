"""What of PyTorch the null device can run."""

import torch


def leave_out_what_it_lacks() -> None:
    """No cuDNN, and no operators in Triton, which PyTorch prefers for some shapes."""
    torch.backends.cudnn.enabled = False
    try:
        from torch._native import triton_utils
    except ImportError:
        return  # PyTorch before 2.14
    triton_utils.deregister_op_overrides()
