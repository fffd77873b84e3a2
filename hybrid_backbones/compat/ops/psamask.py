"""The attention masks of PSANet (ECCV 2018): a window of weights around each pixel, laid out over the whole map.

Shapes: windows `(N, h_mask * w_mask, H, W)`, masks `(N, H * W, H, W)`. With `psa_type` 0 (collect) the channel of a
mask is the pixel that the weight is for, and its place the centre of the window; with 1 (distribute), the reverse.
"""

import torch
from torch import Tensor

COLLECT, DISTRIBUTE = range(2)


def psamask_forward(
    input: Tensor,
    output: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Write the weights of the windows `input` into the masks `output`; the rest of `output` stays as it is."""
    weight, pixel, centre = _pairs((h_feature, w_feature), (h_mask, w_mask), (half_h_mask, half_w_mask), input.device)
    _by_pixel_and_centre(output, psa_type)[:, pixel, centre] = input.flatten(2)[:, weight, centre]


def psamask_backward(
    grad_output: Tensor,
    grad_input: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Write the gradient of `psamask_forward` by `input` into `grad_input`."""
    device = grad_output.device
    weight, pixel, centre = _pairs((h_feature, w_feature), (h_mask, w_mask), (half_h_mask, half_w_mask), device)
    gradient = _by_pixel_and_centre(grad_output, psa_type)[:, pixel, centre]
    grad_input.view(*grad_input.shape[:2], -1)[:, weight, centre] = gradient


def _by_pixel_and_centre(masks: Tensor, psa_type: int) -> Tensor:
    """Masks as `(N, pixel, centre of the window)`, in the same memory."""
    flat = masks.view(*masks.shape[:2], -1)
    return flat if psa_type == COLLECT else flat.transpose(1, 2)


def _pairs(
    size: tuple[int, int], window: tuple[int, int], half: tuple[int, int], device: torch.device
) -> tuple[Tensor, ...]:
    """Every weight of every window that is on the map: its channel, its pixel, and the window's centre, each `(n,)`."""
    (y, in_rows), (x, in_columns) = (_along(*axis, device) for axis in zip(size, window, half, strict=True))
    inside = in_rows[:, None, :, None] & in_columns[None, :, None, :]
    pixels = y[:, None, :, None] * size[1] + x[None, :, None, :]
    weight, centre = inside.flatten(2).flatten(0, 1).nonzero(as_tuple=True)
    return weight, pixels[inside], centre


def _along(size: int, window: int, half: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of each weight and centre along one axis, the weight's place and whether it is on the map: `(window, size)`."""
    places = torch.arange(window, device=device)[:, None] - half + torch.arange(size, device=device)
    return places, (places >= 0) & (places < size)
