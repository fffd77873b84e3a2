"""RoIAlign and RoIPool against their definitions, at the borders, in every precision."""

import math

import mmcv.ops
import pytest
import torch
from torch.autograd import gradcheck


def random_rois(count, size, dtype=torch.float64):
    """Regions of a batch of two, some partly outside an image of `size` pixels."""
    corners = torch.rand(count, 2, 2, dtype=dtype) * (size + 8) - 4
    low, high = corners.amin(1), corners.amax(1)
    return torch.cat([torch.randint(0, 2, (count, 1)).to(dtype), low, high], dim=1)


def pooled_by_definition(features, rois, size, scale):
    """RoIPool: bins from floor to ceil of fractional borders, the last named pixel included."""
    output = features.new_zeros(len(rois), features.shape[1], *size)
    for k, (batch, x1, y1, x2, y2) in enumerate(rois.tolist()):
        spans = []
        for low, high, bins, limit in zip((y1, x1), (y2, x2), size, features.shape[2:], strict=True):
            start, step = low * scale, ((high + 1) * scale - low * scale) / bins
            spans.append(
                [
                    (max(math.floor(start + i * step), 0), min(math.ceil(start + (i + 1) * step), limit))
                    for i in range(bins)
                ]
            )
        for i, (top, bottom) in enumerate(spans[0]):
            for j, (left, right) in enumerate(spans[1]):
                if top < bottom and left < right:
                    output[k, :, i, j] = features[int(batch), :, top:bottom, left:right].amax((1, 2))
    return output


@pytest.mark.parametrize('scale', [1.0, 0.25])
def test_roi_pool_and_its_gradient(scale, device):
    features = torch.rand(2, 3, 11, 14, dtype=torch.float64, device=device, requires_grad=True)
    rois = random_rois(12, 12 / scale).to(device)
    output, expected = (
        mmcv.ops.roi_pool(features, rois, (3, 4), scale),
        pooled_by_definition(features, rois, (3, 4), scale),
    )
    torch.testing.assert_close(output, expected)
    weight = torch.rand_like(output)
    gradients = [torch.autograd.grad(result, features, weight)[0] for result in (output, expected)]
    torch.testing.assert_close(*gradients)
    corner = features[:, :1, :4, :5].detach().requires_grad_()
    assert gradcheck(lambda x: mmcv.ops.roi_pool(x, rois, (3, 4), scale), corner)


def test_roi_pool_of_a_turned_over_region_is_empty():
    features = torch.rand(1, 2, 8, 8, requires_grad=True)
    output = mmcv.ops.roi_pool(features, torch.tensor([[0, 6.0, 6, 1, 1]]), 2)
    output.sum().backward()
    assert not output.any() and not features.grad.any()


def test_roi_pool_in_parts(monkeypatch):
    """Large regions are pooled a few at a time, with the same result."""
    features, rois = torch.rand(2, 3, 11, 14), random_rois(12, 12, torch.float32)
    whole = mmcv.ops.roi_pool(features, rois, (3, 4))
    monkeypatch.setattr('hybrid_backbones.compat.ops.roi.GATHER_LIMIT', 1)
    assert torch.equal(mmcv.ops.roi_pool(features, rois, (3, 4)), whole)


@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('aligned', [True, False])
def test_roi_align_gradient(mode, ratio, aligned, device):
    features = torch.rand(2, 2, 6, 7, dtype=torch.float64, device=device, requires_grad=True)
    rois = random_rois(6, 12).to(device)
    assert gradcheck(lambda x: mmcv.ops.roi_align(x, rois, (2, 3), 0.5, ratio, mode, aligned), features)


def test_roi_align_of_a_plane_is_the_plane():
    """Bilinear samples of x + 10 y are exact: a bin's average is its centre's value, its maximum the last sample's."""
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(24.0), indexing='ij')
    plane, rois = (x + 10 * y)[None, None], torch.tensor([[0, 4.0, 6, 16, 14]])
    left, top = 4 - 0.5 + torch.tensor([1.5, 4.5, 7.5, 10.5]), 6 - 0.5 + torch.tensor([2.0, 6.0])
    centres = left + 10 * top[:, None]
    torch.testing.assert_close(mmcv.ops.roi_align(plane, rois, (2, 4))[0, 0], centres)
    # 3 x 4 pixels per bin, one sample each: the last lies 1 right of and 1.5 below the centre
    torch.testing.assert_close(mmcv.ops.roi_align(plane, rois, (2, 4), 1.0, 0, 'max')[0, 0], centres + 1 + 15)


@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('function', ['roi_align', 'roi_pool'])
def test_no_regions(function, mode):
    features = torch.rand(2, 3, 8, 8, requires_grad=True)
    settings = (1.0, 0, mode, True) if function == 'roi_align' else ()
    output = getattr(mmcv.ops, function)(features, torch.zeros(0, 5), (7, 7), *settings)
    output.sum().backward()
    assert output.shape == (0, 3, 7, 7) and not features.grad.any()


@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_roi_align_in_half_precision(mode, dtype, device):
    """Half features with float32 regions, as under autocast: the float32 result, rounded once."""
    features = torch.rand(2, 3, 16, 16, device=device).to(dtype).requires_grad_()
    rois = random_rois(9, 32, torch.float32).to(device)
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        output = mmcv.ops.roi_align(features, rois, (3, 4), 0.5, 2, mode, True)
    expected = mmcv.ops.roi_align(features.float(), rois, (3, 4), 0.5, 2, mode, True)
    assert output.dtype == dtype and torch.equal(output, expected.to(dtype))
    output.float().sum().backward()
    assert features.grad.dtype == dtype
    # Every bin hands on a gradient of 1, unless it lies outside: the same sum in both precisions.
    exact = torch.autograd.grad(
        mmcv.ops.roi_align(leaf := features.detach().float().requires_grad_(), rois, (3, 4), 0.5, 2, mode, True).sum(),
        leaf,
    )[0]
    torch.testing.assert_close(features.grad.float().sum(), exact.sum(), rtol=0.02, atol=0.1)


def test_roi_pool_in_half_precision():
    features, rois = torch.rand(2, 3, 16, 16).bfloat16(), random_rois(9, 16, torch.float32)
    assert torch.equal(mmcv.ops.roi_pool(features, rois, 3), mmcv.ops.roi_pool(features.float(), rois, 3).bfloat16())


def test_channels_last_features():
    features, rois = torch.rand(2, 8, 16, 16), random_rois(9, 16, torch.float32)
    for function in (mmcv.ops.roi_align, mmcv.ops.roi_pool):
        expected = function(features, rois, (3, 4), 1.0)
        assert torch.equal(function(features.to(memory_format=torch.channels_last), rois, (3, 4), 1.0), expected)


def test_a_wrong_shape_is_refused():
    with pytest.raises(AssertionError, match='idx, x1, y1, x2, y2'):
        mmcv.ops.roi_align(torch.rand(1, 1, 4, 4), torch.zeros(2, 4), 2)
