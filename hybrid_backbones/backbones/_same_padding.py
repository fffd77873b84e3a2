"""TensorFlow's SAME padding for stride 2: by the parity of each side, so that `ceil(side / 2)` is left."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.depthwise import depthwise
from ..layers.inference import known_layer
from ..layers.sizes import ceil_div


@known_layer
class SameConv2d(nn.Conv2d):
    """Plain or depthwise 3x3 convolution with stride 2 and TensorFlow's SAME padding; (N, C, H, W), channels_last.

    An even side has padding behind it only. Two on both sides give that and one output too many, the first: to drop it
    is cheaper than to copy the map into a padded one. Adapters build layers of the same class with stride 1.
    """

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.stride == (1, 1):
            return super()._conv_forward(x, weight, bias)
        if torch.compiler.is_compiling():
            return F.conv2d(_padded(x), weight, bias, 2, groups=self.groups)
        rows, columns = (1 - side % 2 for side in x.shape[2:])
        padding = [1 + rows, 1 + columns]
        if self.in_channels == self.out_channels == self.groups:
            x = depthwise(x.permute(0, 2, 3, 1), weight, bias, 2, padding).permute(0, 3, 1, 2)
        else:
            x = F.conv2d(x, weight, bias, 2, padding)
        return x[:, :, rows:, columns:]


def same_average_pool(x: Tensor, kernel_size: int) -> Tensor:
    """TensorFlow's SAME average pooling of (N, H, W, C) with stride 2, over what there is of the map."""
    rows, columns = (side % 2 * (kernel_size // 3) for side in x.shape[1:3])
    x = x.permute(0, 3, 1, 2)
    if torch.compiler.is_compiling() and kernel_size == 3:
        x = F.avg_pool2d(_padded(x), 3, 2) / F.avg_pool2d(_padded(torch.ones_like(x[:1, :1])), 3, 2)
    else:
        x = F.avg_pool2d(x, kernel_size, 2, (rows, columns), ceil_mode=True, count_include_pad=False)
    return x.permute(0, 2, 3, 1)


def _padded(x: Tensor) -> Tensor:
    """(N, C, H, W) with SAME padding for a kernel of 3 and stride 2, for exporters, (N, C, 2h + 1, 2w + 1).

    No operator of ONNX takes its padding from the size. Here that is in the places, not in the shape, in which a
    remainder at every stage would be more than exporters can simplify.
    """
    x = F.pad(x, (1, 2, 1, 2))
    for dim in (2, 3):
        side = x.shape[dim] - 3
        places = torch.arange(ceil_div(side, 2) * 2 + 1, device=x.device)
        x = x.index_select(dim, places + (1 - side % 2))
    return x
