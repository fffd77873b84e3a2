"""Detectors as networks for export: mmdet's numbers, from eager code to files in onnxruntime and OpenVINO."""

from collections.abc import Callable

import pytest
import torch
from mmengine.config import Config
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


def test_unclipped_boxes(detector):
    settings = config('faster_rcnn')
    settings.rpn_head.bbox_coder.clip_border = settings.roi_head.bbox_head.bbox_coder.clip_border = False
    model = build(settings)
    images = torch.randn(2, 3, 96, 128)
    expected = found_by_mmdet(model, images, (96, 128))
    assert any((image['boxes'] < 0).any() for image in expected)
    with torch.no_grad():
        assert_same(DetectorNetwork(model)(images, torch.tensor((96, 128))), expected)


def test_softmax_of_two_classes_in_the_proposals():
    settings = config('faster_rcnn')
    settings.rpn_head.loss_cls.use_sigmoid = False
    model = build(settings)
    images = torch.randn(1, 3, 128, 96)
    with torch.no_grad():
        assert_same(DetectorNetwork(model)(images, torch.tensor((128, 96))), found_by_mmdet(model, images, (128, 96)))


@pytest.mark.parametrize('name', DETECTORS)
def test_nothing_is_found_on_blank_images(detector, name):
    model, network = detector(name)
    images = torch.zeros(2, 3, 96, 128)
    images[1] = torch.randn(3, 96, 128)
    expected = found_by_mmdet(model, images, (96, 128))
    assert len(expected[0]['scores']) == 0 < len(expected[1]['scores'])
    with torch.no_grad():
        assert_same(network(images, torch.tensor((96, 128))), expected)


SOFT_NMS = dict(type='soft_nms', iou_threshold=0.5)
POOL = dict(type='RoIAlign', output_size=7, sampling_ratio=0)
GENERIC = dict(type='GenericRoIExtractor', roi_layer=POOL, out_channels=64, featmap_strides=[4, 8, 16, 32])
SCNET = dict(type='SCNetBBoxHead', num_shared_fcs=2)
SEESAW = dict(type='SeesawLoss', num_classes=6)
LEGACY_ANCHORS = dict(type='LegacyAnchorGenerator', center_offset=0.5)
# What of a config is changed, and how the error begins.
REFUSED = [
    ('faster_rcnn', 'type', 'GridRCNN', 'model: GridRCNN'),
    ('faster_rcnn', 'rpn_head.anchor_generator', LEGACY_ANCHORS, 'rpn_head.anchor_generator: LegacyAnchorGenerator'),
    ('faster_rcnn', 'rpn_head.bbox_coder.type', 'LegacyDeltaXYWHBBoxCoder', 'rpn_head.bbox_coder: LegacyDelta'),
    ('faster_rcnn', 'rpn_head.bbox_coder.add_ctr_clamp', True, 'rpn_head.bbox_coder: add_ctr_clamp=True'),
    ('faster_rcnn', 'test_cfg.rpn.nms_pre', 0, 'test_cfg of rpn_head: nms_pre=0'),
    ('faster_rcnn', 'test_cfg.rpn.nms', SOFT_NMS, 'test_cfg of rpn_head.nms: .*soft_nms'),
    ('faster_rcnn', 'test_cfg.rcnn.nms', SOFT_NMS, 'test_cfg of roi_head.nms: .*soft_nms'),
    ('faster_rcnn', 'test_cfg.rcnn.max_per_img', -1, 'test_cfg of roi_head: max_per_img=-1'),
    ('faster_rcnn', 'roi_head.type', 'PISARoIHead', 'roi_head: PISARoIHead'),
    ('faster_rcnn', 'roi_head.bbox_roi_extractor', GENERIC | dict(_delete_=True), 'roi_head.bbox_roi_extractor: Generic'),
    ('faster_rcnn', 'roi_head.bbox_roi_extractor.roi_layer.pool_mode', 'max', "roi_head.bbox_roi_extractor.roi_layer: pool_mode='max'"),
    ('faster_rcnn', 'roi_head.bbox_head', SCNET, 'roi_head.bbox_head: SCNetBBoxHead'),
    ('mask_rcnn', 'roi_head.bbox_head.loss_cls', SEESAW, 'roi_head.bbox_head.loss_cls: SeesawLoss'),
    ('mask_rcnn', 'roi_head.mask_head.type', 'HTCMaskHead', 'roi_head.mask_head: HTCMaskHead'),
    ('cascade_rcnn', 'roi_head.bbox_head.1', SCNET, r'roi_head.bbox_head\[1\]: SCNetBBoxHead'),
    ('retinanet', 'bbox_head.type', 'FreeAnchorRetinaHead', 'bbox_head: FreeAnchorRetinaHead'),
    ('retinanet', 'test_cfg.nms.max_num', 5, 'test_cfg of bbox_head.nms: .*max_num'),
]


@pytest.mark.parametrize('name, key, value, message', REFUSED, ids=[f'{name}-{key}' for name, key, *_ in REFUSED])
def test_other_parts_are_refused_by_name(name, key, value, message):
    changed = Config(dict(model=config(name)))
    changed.merge_from_dict({f'model.{key}': value})
    with pytest.raises(ValueError, match='^' + message):
        DetectorNetwork(build(changed.model))


def test_training_mode_is_refused(detector):
    model, _ = detector('retinanet')
    model.train()
    with pytest.raises(ValueError, match=r'training mode.*eval\(\)'):
        DetectorNetwork(model)
    model.eval()
