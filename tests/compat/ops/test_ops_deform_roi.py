"""Deformable RoI pooling against mmcv's kernel, written as loops, and against RoIAlign where nothing is shifted."""

import itertools
import math

import mmcv.ops
import pytest
import torch
from torch.autograd import gradcheck

GAMMA, SCALE = 0.5, 0.5


@pytest.fixture
def tensors(device):
    """Input, rois (across borders, of several sizes, and one without area) and offsets of 2 x 3 bins."""
    rois = [[0, 2.0, 3, 17, 12], [1, -5, -4, 9, 21], [1, 6, 5, 30, 19], [0, 4, 4, 4, 9], [0, 1, 1, 9, 7]]
    features = torch.rand(2, 3, 8, 11, dtype=torch.float64, device=device)
    offset = torch.rand(len(rois), 2, 2, 3, dtype=torch.float64, device=device) * 2 - 1
    return features.requires_grad_(), torch.tensor(rois, dtype=torch.float64, device=device), offset.requires_grad_()


def samples_of(roi, offset, size, ratio, i, j):
    """Region's height and width, and all y and all x of the samples of bin (i, j)."""
    low, high = ((roi[k : k + 2].flip(0) * SCALE - 0.5).tolist() for k in (1, 3))
    extents = [end - start for start, end in zip(low, high, strict=True)]
    places = []
    for axis, (bin_index, shift) in enumerate(((i, offset[1, i, j]), (j, offset[0, i, j]))):
        step = extents[axis] / size[axis]
        count = ratio or max(math.ceil(step), 0)
        start = low[axis] + GAMMA * extents[axis] * shift.item() + bin_index * step
        places.append([start + (k + 0.5) * step / count for k in range(count)])
    return extents, list(itertools.product(*places))


def neighbours(place, size):
    """Lower and upper pixel and the distance from the lower one, clamped to the map."""
    place = min(max(place, 0.0), size - 1.0)
    low = int(place)
    return low, min(low + 1, size - 1), place - low


def by_definition(features, rois, offset, ratio, gradient):
    """Output, gradient of the features and of the offsets."""
    (height, width), size = features.shape[2:], offset.shape[2:]
    output = features.new_zeros(len(rois), features.shape[1], *size)
    by_features, by_offset = torch.zeros_like(features), torch.zeros_like(offset)
    for k, i, j in itertools.product(range(len(rois)), *map(range, size)):
        extents, samples = samples_of(rois[k, :], offset[k], size, ratio, i, j)
        image, n = features[int(rois[k, 0])], int(rois[k, 0])
        for y, x in samples:
            if y < -1 or y > height or x < -1 or x > width:
                continue
            (top, bottom, down), (left, right, along) = neighbours(y, height), neighbours(x, width)
            g = gradient[k, :, i, j] / len(samples)
            for row, a in ((top, 1 - down), (bottom, down)):
                for column, b in ((left, 1 - along), (right, along)):
                    output[k, :, i, j] += a * b * image[:, row, column] / len(samples)
                    by_features[n, :, row, column] += a * b * g
            v00, v01, v10, v11 = (image[:, row, column] for row in (top, bottom) for column in (left, right))
            slope_x = v11 * (y - top) + v01 * (bottom - y) + v10 * (top - y) + v00 * (y - bottom)
            slope_y = v11 * (x - left) + v10 * (right - x) + v01 * (left - x) + v00 * (x - right)
            by_offset[k, 0, i, j] += GAMMA * extents[1] * (slope_x * g).sum()
            by_offset[k, 1, i, j] += GAMMA * extents[0] * (slope_y * g).sum()
    return output, by_features, by_offset


@pytest.mark.parametrize('ratio', [0, 2])
def test_definition_and_gradients(tensors, ratio):
    features, rois, offset = tensors
    output = mmcv.ops.deform_roi_pool(features, rois, offset, (2, 3), SCALE, ratio, GAMMA)
    gradient = torch.rand_like(output)
    gradients = torch.autograd.grad(output, (features, offset), gradient)
    expected = by_definition(features.detach(), rois, offset.detach(), ratio, gradient)
    torch.testing.assert_close((output, *gradients), expected)


def test_gradients_inside_the_map(tensors):
    features, _, offset = tensors
    rois = features.new_tensor([[1, 6, 6, 13, 11]])
    function = lambda x, o: mmcv.ops.deform_roi_pool(x, rois, o, (2, 3), SCALE, 2, 0.1)  # noqa: E731
    assert gradcheck(function, (features, offset[:1].detach().requires_grad_()))


@pytest.mark.parametrize('ratio', [0, 2])
def test_without_offsets_it_is_roi_align(tensors, ratio):
    features, rois, _ = tensors
    results = []
    for output in (
        mmcv.ops.deform_roi_pool(features, rois, None, (2, 3), SCALE, ratio, GAMMA),
        mmcv.ops.roi_align(features, rois, (2, 3), SCALE, ratio, 'avg', True),
    ):
        results.append((output, torch.autograd.grad(output.square().sum(), features)[0]))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    layer = mmcv.ops.ModulatedDeformRoIPoolPack((2, 2), 4, deform_fc_channels=8, spatial_scale=SCALE).to(dtype)
    features = torch.rand(1, 4, 6, 6).to(dtype).requires_grad_()
    output = layer(features, torch.tensor([[0, 1.0, 1, 9, 9]], dtype=dtype))
    output.float().sum().backward()
    assert output.dtype == features.grad.dtype == dtype and features.grad.any()
