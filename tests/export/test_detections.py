"""From the network's boxes and masks to the original image, against mmdet."""

import numpy as np
import torch
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

from hybrid_backbones.export.detections import paste, rescale
from hybrid_backbones.export.runtime import paste_masks

HEIGHT, WIDTH = 60, 81


def boxes_and_masks() -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes inside, over the border, of a single pixel and of less, and empty; smooth masks."""
    boxes = [[3.2, 5.5, 40.1, 50.7], [-6, -3, 30, 20], [60, 40, 95, 70], [10, 10, 11, 11], [20.2, 20.2, 20.4, 20.3]]
    torch.manual_seed(0)
    masks = torch.nn.functional.interpolate(torch.rand(len(boxes), 1, 4, 4), (28, 28), mode='bilinear')[:, 0]
    return torch.tensor(boxes), masks


def test_pasted_masks_are_mmdets():
    boxes, masks = boxes_and_masks()
    expected, _ = _do_paste_mask(masks[:, None], boxes, HEIGHT, WIDTH, skip_empty=False)
    assert torch.equal(paste(masks[None], boxes[None], HEIGHT, WIDTH, 0.5)[0], expected >= 0.5)
    assert (expected >= 0.5).flatten(1).any(1).tolist() == [True, True, True, False, False]


def test_an_empty_box_has_no_mask():
    assert not paste(torch.ones(1, 1, 28, 28), torch.zeros(1, 1, 4), HEIGHT, WIDTH, 0.5).any()
    assert not paste_masks(np.ones((1, 28, 28), np.float32), np.zeros((1, 4), np.float32), HEIGHT, WIDTH).any()


def test_masks_pasted_by_the_caller():
    boxes, masks = boxes_and_masks()
    inside = paste(masks[None], boxes[None], HEIGHT, WIDTH, 0.5)[0].numpy()
    assert (paste_masks(masks.numpy(), boxes.numpy(), HEIGHT, WIDTH) != inside).mean() < 1e-4


def test_boxes_in_the_original_image():
    box = torch.tensor([100.0, 50.0, 200.0, 150.0])
    scaled = rescale(box, torch.tensor([800, 1333]), torch.tensor([400, 500]))
    torch.testing.assert_close(scaled, torch.tensor([100 * 500 / 1333, 25.0, 200 * 500 / 1333, 75.0]))
