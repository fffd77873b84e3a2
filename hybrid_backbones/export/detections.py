"""Detections from the input of the network back to the original image: boxes, and masks pasted into it."""

import torch
from torch import Tensor, nn

from .detectors import DetectorNetwork
from .sizes import length_of


def rescale(boxes: Tensor, size: Tensor, original: Tensor) -> Tensor:
    """Boxes (..., 4) of an image of height and width `size`, (2,), in the image of height and width `original`."""
    scale = (size.float() / original.float()).flip(0)
    return boxes / torch.cat([scale, scale])


def paste(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float) -> Tensor:
    """Masks in the image, as mmdet pastes them: bilinear between the centres of the cells, zero outside.

    The interpolation is one of rows and one of columns, two products with weights made from the boxes.

    Args:
        masks: (N, D, S, S) probabilities.
        boxes: (N, D, 4) in pixels of the image.
        height, width: Of the image in pixels.
        threshold: From this probability on a pixel belongs to the object.

    Returns:
        (N, D, height, width) bool.
    """
    left, top, right, bottom = boxes.unbind(-1)
    rows = _weights(height, top, bottom, masks)
    columns = _weights(width, left, right, masks)
    return rows @ masks @ columns.transpose(2, 3) >= threshold


def _weights(length: int, start: Tensor, end: Tensor, masks: Tensor) -> Tensor:
    """(N, D, length, S): how much each of the S cells between start and end, (N, D), counts for every pixel."""
    cells = masks.shape[-1]
    centres = torch.arange(length, device=masks.device) + 0.5
    # An empty box, and the entries behind the last detection, would divide by zero.
    extent = (end - start).clamp(min=torch.finfo(masks.dtype).eps).unsqueeze(-1)
    position = (centres - start.unsqueeze(-1)) / extent * cells - 0.5
    distance = position.unsqueeze(-1) - torch.arange(cells, device=masks.device)
    return (1 - distance.abs()).clamp(min=0)


class ExportableDetector(nn.Module):
    """A detector of mmdet from the network's input to detections in the original image.

    Args:
        model: Of one of the kinds that :class:`~.detectors.DetectorNetwork` knows, in eval mode.
        paste_masks: Masks at the size of the image; else as the head gives them, for `runtime.paste_masks`.

    Raises:
        ValueError: The model has a part that is not exported; which.
    """

    def __init__(self, model: nn.Module, paste_masks: bool = True) -> None:
        super().__init__()
        self.network = DetectorNetwork(model)
        self.stride = self.network.stride
        self.outputs = 'count', 'boxes', 'scores', 'labels', *(['masks'] if self.network.masks is not None else [])
        self.threshold = None
        if paste_masks and self.network.masks is not None:
            self.threshold = float(model.roi_head.test_cfg.mask_thr_binary)

    def forward(self, image: Tensor, size: Tensor, original: Tensor) -> tuple[Tensor, ...]:
        """Detections in the original image.

        Args:
            image: (N, 3, h, w) normalized and padded images.
            size: (2,) int64, height and width of the images without padding.
            original: (2,) int64, height and width, H and W, that the images had in their files.

        Returns:
            With D, the largest number of detections in an image:

            count: (N,) int64, detections of every image. The entries behind them are zeros, of label -1.
            boxes: (N, D, 4), left, top, right, bottom in pixels of the original image, by falling score.
            scores: (N, D).
            labels: (N, D) int64, index of the class.
            masks: (N, D, H, W) bool; or, not pasted, (N, D, S, S) probabilities in the box. Not without a mask head.
        """
        found = self.network(image, size)
        number = found['count'].max().item()
        torch._check(number >= 0)
        torch._check(number <= found['boxes'].shape[1])
        boxes = rescale(found['boxes'][:, :number], size, original)
        masks = found.get('masks')
        if masks is not None:
            masks = masks[:, :number]
            if self.threshold is not None:
                masks = paste(masks, boxes, length_of(original[0]), length_of(original[1]), self.threshold)
        results = found['count'], boxes, found['scores'][:, :number], found['labels'][:, :number]
        return results if masks is None else (*results, masks)
