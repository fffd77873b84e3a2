"""Shifted windows of timm's Swin (V1, V2, V2-CR) on maps of any size, as the published detectors compute them.

Detectors (Microsoft's, mmdet's `SwinTransformer`, mmseg's) pad a map to whole windows and then shift it; timm shifts
first, so that other positions share a window, and does not shift a map of one window. Both functions are here, without
timm's record of the last size: activation checkpointing, compilers and batches of changing size get the same.
"""

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2Block, window_partition, window_reverse
from timm.models.swin_transformer_v2_cr import SwinTransformerV2CrBlock
from torch import Tensor, nn

from ..layers.crop import leading
from ..layers.sizes import to_multiple

# Keys of mmdet's and mmseg's SwinTransformer to those of `TimmPyramid`; `''` drops a key.
OPENMMLAB_KEYS = (
    (r'^.*\.relative_position_index$', ''),
    (r'^patch_embed\.projection\.', 'trunk.patch_embed.proj.'),
    (r'^patch_embed\.norm\.', 'trunk.patch_embed.norm.'),
    (r'^norm(\d)\.', r'out_norms.\1.'),
    # timm halves a map at the start of a stage, OpenMMLab at the end of the one before.
    (r'^stages\.0\.downsample\.', 'trunk.layers.1.downsample.'),
    (r'^stages\.1\.downsample\.', 'trunk.layers.2.downsample.'),
    (r'^stages\.2\.downsample\.', 'trunk.layers.3.downsample.'),
    (r'^stages\.', 'trunk.layers.'),
    (r'\.attn\.w_msa\.', '.attn.'),
    (r'\.ffn\.layers\.0\.0\.', '.mlp.fc1.'),
    (r'\.ffn\.layers\.1\.', '.mlp.fc2.'),
)


class ShiftedWindows:
    """Windowed attention of a block, for any map; goes before one of timm's classes."""

    # Whether the map is padded before it is shifted, and shifted whatever its size.
    pad_before_shift: bool

    def _attn(self, x: Tensor) -> Tensor:
        """(N, H, W, C) in and out."""
        height, width = x.shape[1:3]
        rows, columns = self.window_size
        padding = (0, 0, 0, to_multiple(width, columns), 0, to_multiple(height, rows))
        shift = self._shift(x.shape[1:3])
        back = [-side for side in shift]
        if self.pad_before_shift:
            x = torch.roll(F.pad(x, padding), back, (1, 2))
            return _crop(torch.roll(self._within_windows(x, shift), shift, (1, 2)), height, width)
        x = self._within_windows(F.pad(torch.roll(x, back, (1, 2)), padding), shift)
        return torch.roll(_crop(x, height, width), shift, (1, 2))

    _shifted_window_attn = _attn  # V2-CR's name of it

    def _shift(self, size: Sequence[int]) -> list[int]:
        if not any(self.target_shift_size):
            return [0, 0]
        sides = zip(size, self.window_size, strict=True)
        return [window // 2 if self.pad_before_shift or side > window else 0 for side, window in sides]

    def _within_windows(self, x: Tensor, shift: Sequence[int]) -> Tensor:
        """Attention within the windows of a map of whole windows, and there within what was adjacent before `shift`."""
        windows = window_partition(x, self.window_size).flatten(1, 2)
        windows = self.attn(windows, mask=self._mask(x, shift) if any(shift) else None)
        return window_reverse(windows.unflatten(1, self.window_size), self.window_size, x.shape[1:3])

    def _mask(self, x: Tensor, shift: Sequence[int]) -> Tensor:
        """(windows, T, T), -100 for pairs of tokens of a window that the shift brought together."""
        rows, columns = (
            (torch.arange(side, device=x.device) >= side - step).to(x.dtype)
            for side, step in zip(x.shape[1:3], shift, strict=True)
        )
        parts = window_partition((2 * rows[:, None] + columns)[None, :, :, None], self.window_size).flatten(1)
        return (parts[:, None] != parts[:, :, None]).to(x.dtype) * -100


def _crop(x: Tensor, height: int, width: int) -> Tensor:
    """The first rows and columns of (N, H, W, C)."""
    return leading(leading(x, 1, height), 2, width)


class Block(ShiftedWindows, SwinTransformerBlock):
    """Swin's."""


class BlockV2(ShiftedWindows, SwinTransformerV2Block):
    """Swin V2's."""


class BlockV2Cr(ShiftedWindows, SwinTransformerV2CrBlock):
    """Swin V2's as Christoph Reich wrote it."""


CLASSES = {
    SwinTransformerBlock: Block,
    SwinTransformerV2Block: BlockV2,
    SwinTransformerV2CrBlock: BlockV2Cr,
}


def shift_at_any_size(network: nn.Module, pad_before_shift: bool) -> None:
    """Give the blocks of a network of timm, if they are Swin's, windows for maps of any size."""
    for module in network.modules():
        if type(module) in CLASSES:
            module.__class__ = CLASSES[type(module)]
            module.pad_before_shift = pad_before_shift


def is_of_openmmlab(state: dict[str, Tensor]) -> bool:
    return any('.attn.w_msa.' in key for key in state)


def convert_openmmlab(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of mmdet's or mmseg's SwinTransformer under our names, in timm's order of merged pixels."""
    converted = {}
    for key, value in state.items():
        name = key
        for pattern, replacement in OPENMMLAB_KEYS:
            name = re.sub(pattern, replacement, name)
        if name:
            converted[name] = _reorder_pixels(value) if '.downsample.' in name else value
    return converted


def _reorder_pixels(merged: Tensor) -> Tensor:
    """Last axis from (channel, row, column), nn.Unfold's order, to (column, row, channel)."""
    return merged.unflatten(-1, (-1, 2, 2)).movedim((-3, -1), (-1, -3)).flatten(-3)
