"""Detectors as networks for export: mmdet's numbers, from eager code to files in onnxruntime and OpenVINO."""

from collections.abc import Callable

import pytest
import torch
from small_detectors import DETECTORS, build, config, found_by_mmdet
from torch import Tensor, nn

from hybrid_backbones.export.detectors import DetectorNetwork

# Batches as they come to the network, and the size of the images before padding: at a multiple of the strides, batches,
# portrait and landscape, fewer cells than the box head takes proposals.
SIZES = [((1, 160, 160), (160, 160)), ((2, 192, 256), (180, 250)), ((3, 96, 64), (93, 60)), ((1, 64, 224), (64, 223))]


@pytest.fixture(scope='module')
def detector() -> Callable[[str], tuple[nn.Module, DetectorNetwork]]:
    """A detector with weights that detect, and its network for export."""
    built: dict[str, nn.Module] = {}

    def get(name: str) -> tuple[nn.Module, DetectorNetwork]:
        if name not in built:
            built[name] = build(config(name))
        return built[name], DetectorNetwork(built[name])

    return get


def assert_same(outputs: dict[str, Tensor], expected: list[dict[str, Tensor]]) -> None:
    """The same detections as mmdet's in the same order, and nothing behind them."""
    assert outputs['count'].tolist() == [len(image['scores']) for image in expected]
    tolerances = {'boxes': 0.01, 'scores': 1e-4, 'labels': 0, 'masks': 1e-3}
    for number, image in enumerate(expected):
        count = len(image['scores'])
        for name, values in image.items():
            torch.testing.assert_close(outputs[name][number, :count], values, atol=tolerances[name], rtol=0)
            behind = outputs[name][number, count:]
            assert (behind == (-1 if name == 'labels' else 0)).all(), name


@pytest.mark.parametrize('shape, size', SIZES)
@pytest.mark.parametrize('name', DETECTORS)
def test_like_mmdet(detector, name, shape, size):
    model, network = detector(name)
    images = torch.randn(shape[0], 3, *shape[1:])
    expected = found_by_mmdet(model, images, size)
    assert min(len(image['scores']) for image in expected) > 10
    with torch.no_grad():
        outputs = network(images, torch.tensor(size))
    assert set(outputs) == {'boxes', 'scores', 'labels', 'count'} | ({'masks'} if model.with_mask else set())
    assert_same(outputs, expected)
