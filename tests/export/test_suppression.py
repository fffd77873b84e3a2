"""Suppression over a batch, beside mmcv's of one image after the other."""

import pytest
import torch
from mmcv.ops import batched_nms
from torch import Tensor, nn
from torch.export import Dim

from hybrid_backbones.export.programs import export_program, to_onnx
from hybrid_backbones.export.suppression import ABSENT, Best, Suppression, best, suppress


def crowd(images: int, count: int, lowest: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes that overlap often, scores of which some are equal, and classes; a third of the boxes is absent."""
    corner = torch.rand(images, count, 2) * 60 + lowest
    boxes = torch.cat([corner, corner + torch.rand(images, count, 2) * 40], -1)
    scores = (torch.rand(images, count) * 200).round() / 200
    scores[torch.rand(images, count) < 1 / 3] = ABSENT
    return boxes, scores, torch.randint(0, 5, (images, count))


# mmcv does not quite separate classes where coordinates are negative; of one image alone, this is followed, too.
@pytest.mark.parametrize('images, lowest', [(3, 0), (1, -70)])
@pytest.mark.parametrize('class_agnostic', [False, True])
def test_like_mmcv_image_by_image(class_agnostic, images, lowest):
    boxes, scores, groups = crowd(images, 400, lowest)
    found = suppress(boxes, scores, groups, Suppression(0.5, class_agnostic), 300)
    for image in range(images):
        there = (scores[image] > ABSENT).nonzero().squeeze(1)
        settings = dict(iou_threshold=0.5, class_agnostic=class_agnostic)
        inputs = boxes[image, there], scores[image, there], groups[image, there]
        _, kept = batched_nms(*inputs, settings)
        assert 20 < len(kept) < len(there)
        assert found.index[image, found.found[image]].tolist() == there[kept].tolist()


def test_boxes_of_other_images_are_left_alone():
    boxes, scores, groups = crowd(1, 50, lowest=-200)
    alone = suppress(boxes, scores, groups, Suppression(0.3), 50)
    both = suppress(*(torch.cat([values, values]) for values in (boxes, scores, groups)), Suppression(0.3), 50)
    assert both.index.tolist() == alone.index.tolist() * 2


def test_images_without_boxes():
    boxes, scores, groups = crowd(2, 30)
    scores[1] = ABSENT
    found = suppress(boxes, scores, groups, Suppression(0.5), 40)
    assert found.found.any(1).tolist() == [True, False]
    assert not suppress(boxes, torch.full_like(scores, ABSENT), groups, Suppression(0.5), 40).found.any()


@pytest.mark.parametrize('k', [3, 50, 80])
def test_of_equal_scores_the_first_come_first(k):
    scores = torch.tensor([0.9, 0.1, 0.9, 0.5, 0.9] * 10).repeat(2, 1)
    found = best(scores, k)
    values, index = scores.sort(descending=True, stable=True)
    assert torch.equal(found.scores[:, :50], values[:, :k])
    assert not found.found[:, 50:].any()
    if k == 50:
        assert torch.equal(found.index, index)


class Suppressed(nn.Module):
    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> Best:
        return suppress(boxes, scores, groups, Suppression(0.5), 100)


def test_engines_keep_the_same_of_equal_scores(tmp_path):
    """As sets: OpenVINO leaves open which of equal scores comes first in the end."""
    onnxruntime, openvino = pytest.importorskip('onnxruntime'), pytest.importorskip('openvino')
    free = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    program = export_program(Suppressed().eval(), crowd(2, 300), (free, free, free))
    names = ['boxes', 'scores', 'groups']
    path = to_onnx(program, tmp_path / 'suppress.onnx', names, ['best', 'index'])
    session, compiled = onnxruntime.InferenceSession(path), openvino.Core().compile_model(path, 'CPU')
    for images, count in ((1, 400), (2, 90), (3, 200)):
        inputs = crowd(images, count)
        expected = Suppressed()(*inputs)
        arrays = {name: values.numpy() for name, values in zip(names, inputs, strict=True)}
        for scores, index in (session.run(None, arrays), compiled(arrays).values()):
            assert (scores == expected.scores.numpy()).all()
            for image in range(images):
                # Of a full image, the choice among those that score like the last is open.
                certain = expected.scores[image] > max(expected.scores[image, -1].item(), ABSENT)
                assert set(expected.index[image, certain].tolist()) <= set(index[image].tolist())
