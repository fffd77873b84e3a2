"""Segmentors of mmseg as one module that exporters can trace at any size."""

import copy

import torch
import torch.nn.functional as F
from mmseg.models.segmentors import EncoderDecoder
from torch import Tensor, nn

from .pooling import replace_adaptive_pooling
from .sizes import length_of


class ExportableSegmentor(nn.Module):
    """Whole-image inference of an `EncoderDecoder`, back to the size of the original image.

    Args:
        model: In eval mode. It is copied, not changed.

    Raises:
        ValueError: The model is of another kind, or is tested by sliding windows.
    """

    outputs = 'labels', 'logits'
    stride = 32  # of the coarsest map

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if type(model) is not EncoderDecoder:
            raise ValueError(f'model: {type(model).__name__}; of segmentors, EncoderDecoder is exported')
        if (mode := model.test_cfg.get('mode', 'whole')) != 'whole':
            raise ValueError(
                f"model.test_cfg.mode={mode!r}: the file takes whole images; set test_cfg.mode='whole' if the model is "
                'to be used so'
            )
        model = copy.deepcopy(model)
        # Not needed for inference, and not exported.
        model.auxiliary_head = None
        self.model = replace_adaptive_pooling(model)

    def forward(self, image: Tensor, size: Tensor, original: Tensor) -> tuple[Tensor, Tensor]:
        """Labels and logits at the size of the original image.

        Args:
            image: (N, 3, h, w) normalized and padded images.
            size: (2,) int64, height and width of the images without padding.
            original: (2,) int64, height and width, H and W, that the images had in their files.

        Returns:
            labels: (N, H, W) uint8 (int32 from 256 classes on), index of the class of every pixel.
            logits: (N, C, H, W) float32; of a single class its probability.
        """
        head = self.model.decode_head
        logits = head(self.model.extract_feat(image))
        logits = self._resize(logits, image.shape[2:])
        logits = logits[:, :, : length_of(size[0]), : length_of(size[1])]
        logits = self._resize(logits, (length_of(original[0]), length_of(original[1])))
        if logits.shape[1] == 1:
            logits = logits.sigmoid()
            return (logits[:, 0] > head.threshold).to(torch.uint8), logits
        dtype = torch.uint8 if logits.shape[1] <= 256 else torch.int32
        return logits.argmax(1).to(dtype), logits

    def _resize(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(logits, size=size, mode='bilinear', align_corners=self.model.align_corners)
