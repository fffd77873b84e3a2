"""An image to the input of a network, inside the exported file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.sizes import to_multiple
from .sizes import length_of

# OpenCV interpolates between two pixels of 8 bits in steps of 1/2048.
_STEPS = 2048


@dataclass(frozen=True)
class InputRule:
    """From an image, (H, W, 3) in RGB, to the input of the network.

    Attributes:
        scale: Longer and shorter side in pixels, into which the image is made to fit; None: it keeps its size.
        keep_ratio: False: the image is made exactly `scale` large, then width and height.
        mean, std: Of the channels, in the order of `channels`.
        channels: Order of the network's channels, `RGB` or `BGR`. The file always takes RGB.
        divisor: Height and width are padded at the bottom and on the right to a multiple of it.
        pad_value: Value of the padding, after normalization.
    """

    scale: tuple[int, int] | None
    keep_ratio: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: str
    divisor: int
    pad_value: float


class Preprocessing(nn.Module):
    """Resize, normalize and pad images as mmdet and mmseg do by OpenCV.

    Args:
        rule: How.
    """

    def __init__(self, rule: InputRule) -> None:
        super().__init__()
        self.rule = rule
        self.register_buffer('mean', torch.tensor(rule.mean).view(3, 1, 1))
        self.register_buffer('std', torch.tensor(rule.std).view(3, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The network's input.

        Args:
            image: (N, H, W, 3) RGB, uint8 or, in the same range, float32.

        Returns:
            (N, 3, h, w) float32 input; (2,) int64 height and width of the image in it, without padding; (2,) int64
            H and W.
        """
        original = torch.stack([_scalar(image.shape[1], image), _scalar(image.shape[2], image)])
        if self.rule.scale is None:
            size = original.clone()
        else:
            size = target_size(original, self.rule.scale, self.rule.keep_ratio)
            image = resize(image, length_of(size[0]), length_of(size[1]))
        image = image.permute(0, 3, 1, 2)
        if self.rule.channels == 'BGR':
            image = image.flip(1)
        image = (image.float() - self.mean) / self.std
        divisor = self.rule.divisor
        if divisor > 1:
            height, width = image.shape[2:]
            right, bottom = to_multiple(width, divisor), to_multiple(height, divisor)
            image = F.pad(image, (0, right, 0, bottom), value=self.rule.pad_value)
        return image, size, original


def preprocessing_of(meta: Mapping[str, Any]) -> Preprocessing:
    """That of an exported file, by the JSON beside it."""
    rule = {key: meta['input'][key] for key in InputRule.__dataclass_fields__}
    return Preprocessing(InputRule(**rule)).eval()


def _scalar(length: int, like: Tensor) -> Tensor:
    return torch.scalar_tensor(length, dtype=torch.int64, device=like.device)


def target_size(original: Tensor, scale: tuple[int, int], keep_ratio: bool) -> Tensor:
    """Height and width, (2,), of an image of `original` height and width once resized to `scale`; see InputRule.

    In whole numbers: a quotient of floats that ends in .5 rounds differently from engine to engine.
    """
    if not keep_ratio:
        return torch.stack([torch.full_like(original[0], scale[1]), torch.full_like(original[0], scale[0])])
    longer, shorter = original.max(), original.min()
    # The larger of the two quotients longer / scale[0] and shorter / scale[1], as numerator and denominator.
    by_longer = longer * scale[1] >= shorter * scale[0]
    reached = torch.where(by_longer, scale[0], scale[1])
    given = torch.where(by_longer, longer, shorter)
    return (2 * original * reached + given) // (2 * given)


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, as `cv2.resize`, from which a few pixels of 8 bits in a thousand differ by one.

    Args:
        image: (N, H, W, C), uint8 or float32.

    Returns:
        (N, height, width, C) of the same dtype.
    """
    left, right, part = _neighbours(image.shape[2], width, image)
    top, bottom, part_below = _neighbours(image.shape[1], height, image)
    part, part_below = part[:, None], part_below[:, None, None]
    if image.dtype != torch.uint8:
        rows = image[:, :, left] * (1 - part) + image[:, :, right] * part
        return rows[:, top] * (1 - part_below) + rows[:, bottom] * part_below
    # In float32, in which engines agree to the last bit; OpenCV's integers are all but a few of them exact.
    wide = image.float()
    rows = wide[:, :, left] * _fixed_point(1 - part) + wide[:, :, right] * _fixed_point(part)
    rows = (rows * 2**-4).floor()
    above = (rows[:, top] * _fixed_point(1 - part_below) * 2**-16).floor()
    below = (rows[:, bottom] * _fixed_point(part_below) * 2**-16).floor()
    return ((above + below + 2) * 2**-2).floor().to(torch.uint8)


def _fixed_point(part: Tensor) -> Tensor:
    return (part * _STEPS).round()


def _neighbours(before: int, after: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of the two pixels that each new one lies between, and the part of the second; (after,) each."""
    # (i + 1/2) * before / after - 1/2, in whole numbers as far as they go: the same in every engine.
    numerator, denominator = (2 * torch.arange(after, device=like.device) + 1) * before - after, 2 * after
    first = (numerator.float() / denominator).floor().long()
    part = (numerator - first * denominator).float() / denominator
    part = torch.where((first < 0) | (first >= before - 1), 0.0, part)
    first = first.clamp(0, before - 1)
    return first, (first + 1).clamp(max=before - 1), part
