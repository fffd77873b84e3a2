"""Convolution at chosen pixels only (Guided Anchoring, arXiv 1901.03278): their patches, and results put back.

`mask_h_idx` and `mask_w_idx` are `(n,)` int64: the rows and columns of the pixels. mmcv gives the convolution no
gradient: it is for inference.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Write the patches of `im` `(1, C, H, W)` at the pixels into `col` `(C * kernel_h * kernel_w, n)`."""
    padded = F.pad(im[0], (pad_w, kernel_w - 1, pad_h, kernel_h - 1))
    rows = mask_h_idx + torch.arange(kernel_h, device=im.device)[:, None, None]
    columns = mask_w_idx + torch.arange(kernel_w, device=im.device)[:, None]
    col.copy_(padded[:, rows, columns].flatten(0, 2))


def masked_col2im_forward(
    col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, height: int, width: int, channels: int
) -> None:
    """Write `col` `(channels, n)` into `im` `(1, channels, height, width)` at the pixels."""
    im[0, :, mask_h_idx, mask_w_idx] = col
