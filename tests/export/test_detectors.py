"""Detectors as networks for export: mmdet's numbers, from eager code to files in onnxruntime and OpenVINO."""

from collections.abc import Callable
from pathlib import Path

import mmcv
import pytest
import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmengine.config import Config
from small_detectors import CONFIGS, DETECTORS, build, build_two_levels, config, found_by_mmdet
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from hybrid_backbones.datasets.shapes import ensure_shapes
from hybrid_backbones.engine.config import load_config
from hybrid_backbones.engine.trained_model import load_trained
from hybrid_backbones.export.detectors import DetectorNetwork
from hybrid_backbones.export.programs import export_program, to_onnx

Run = Callable[[Tensor, Tensor], dict[str, Tensor]]
THRESHOLD = 0.05
TOLERANCES = {'boxes': 0.01, 'scores': 1e-4, 'labels': 0, 'masks': 1e-3}

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
    for number, image in enumerate(expected):
        count = len(image['scores'])
        for name, values in image.items():
            torch.testing.assert_close(outputs[name][number, :count], values, atol=TOLERANCES[name], rtol=0)
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
MAXIMUM = dict(type='RoIAlign', output_size=7, sampling_ratio=1, pool_mode='max')
GENERIC = dict(type='GenericRoIExtractor', _delete_=True, roi_layer=MAXIMUM, out_channels=64, featmap_strides=[4, 8])
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
    (
        'faster_rcnn',
        'roi_head.bbox_roi_extractor',
        GENERIC | dict(_delete_=True),
        'roi_head.bbox_roi_extractor: Generic',
    ),
    (
        'faster_rcnn',
        'roi_head.bbox_roi_extractor.roi_layer.pool_mode',
        'max',
        "roi_head.bbox_roi_extractor.roi_layer: pool_mode='max'",
    ),
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


def assert_like_network(network: DetectorNetwork, *runs: Run) -> None:
    """The same detections as of the network at sizes that were not traced, in batches, and where nothing is there."""
    # Two cells of the coarsest map and more.
    scale = max(1, network.stride // 32)
    for shape, size in [*SIZES, ((2, 97, 65), (97, 60)), ((1, 63, 129), (50, 129))]:
        images, size = torch.randn(shape[0], 3, shape[1] * scale, shape[2] * scale), torch.tensor(size) * scale
        images[1:2] = 0
        with torch.no_grad():
            expected = network(images, size)
        assert expected['count'][0] > 5
        for run in runs:
            assert_close(run(images, size), expected)
    blank = torch.zeros(1, 3, 96 * scale, 96 * scale), torch.tensor((96, 96)) * scale
    for run in runs:
        assert run(*blank)['count'].tolist() == [0]


def assert_close(outputs: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Each detection has its like on the other side; the order of two that score alike is left open.

    The last of a full image, and those at the threshold, may have scored a little less on the other side.
    """
    for image in range(len(expected['count'])):
        sides = [{name: values[image] for name, values in side.items()} for side in (outputs, expected)]
        for found, others in (sides, sides[::-1]):
            count = int(found['count'])
            full = count == len(found['scores'])
            certain = found['scores'][:count] > (found['scores'][-1] if full else THRESHOLD) + TOLERANCES['scores']
            distances = (found['boxes'][:count, None] - others['boxes']).abs().amax(-1)
            distances[found['labels'][:count, None] != others['labels']] = torch.inf
            distance, like = distances.min(1)
            assert (distance[certain] <= TOLERANCES['boxes']).all()
            for name in {'scores', 'masks'} & set(found):
                values, theirs = found[name][:count][certain], others[name][like][certain]
                torch.testing.assert_close(values, theirs, atol=TOLERANCES[name], rtol=0)


def exported(network: DetectorNetwork, strict: bool = False) -> ExportedProgram:
    side = max(192, 6 * network.stride)
    example = torch.randn(2, 3, side, side + 64), torch.tensor((side - 12, side + 58))
    return export_program(network, example, ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}, {}), strict)


def onnx_file(program: ExportedProgram, network: DetectorNetwork, folder: Path) -> tuple[Path, list[str]]:
    names = ['boxes', 'scores', 'labels', 'count', *(['masks'] if network.masks is not None else [])]
    return to_onnx(program, folder / 'network.onnx', ['image', 'size'], names), names


def in_onnxruntime(path: Path, names: list[str]) -> Run:
    session = pytest.importorskip('onnxruntime').InferenceSession(path)

    def run(image: Tensor, size: Tensor) -> dict[str, Tensor]:
        found = session.run(names, {'image': image.numpy(), 'size': size.numpy()})
        return {name: torch.from_numpy(values) for name, values in zip(names, found, strict=True)}

    return run


def in_openvino(path: Path, names: list[str]) -> Run:
    settings = {'INFERENCE_PRECISION_HINT': 'f32'}
    compiled = pytest.importorskip('openvino').Core().compile_model(path, 'CPU', settings)

    def run(image: Tensor, size: Tensor) -> dict[str, Tensor]:
        found = compiled({'image': image.numpy(), 'size': size.numpy()})
        return {name: torch.from_numpy(found[name].copy()) for name in names}

    return run


def test_program_of_two_levels():
    """Every part of a detector but its backbone, in seconds; files, and whole detectors, take longer."""
    network = DetectorNetwork(build_two_levels('mask_rcnn'))
    assert_like_network(network, exported(network).module())


@pytest.mark.slow
def test_files_of_two_levels(tmp_path):
    network = DetectorNetwork(build_two_levels('mask_rcnn'))
    path, names = onnx_file(exported(network), network, tmp_path)
    assert_like_network(network, in_onnxruntime(path, names), in_openvino(path, names))


@pytest.mark.slow
def test_strict_export():
    network = DetectorNetwork(build_two_levels('cascade_rcnn'))
    assert_like_network(network, exported(network, strict=True).module())


@pytest.mark.slow
@pytest.mark.parametrize('name', DETECTORS)
def test_files(detector, tmp_path, name):
    _, network = detector(name)
    program = exported(network)
    path, names = onnx_file(program, network, tmp_path)
    assert_like_network(network, program.module(), in_onnxruntime(path, names), in_openvino(path, names))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['maskrcnn', 'cascade_maskrcnn'])
def test_trained_weights_on_real_images(run_tool, real_images, tmp_path, name):
    """Files and the network in PyTorch find what mmdet finds, on drawn scenes and on photographs."""
    config_file = CONFIGS / f'{name}_conv2former_n_shapes.py'
    status, *printed = run_tool('train', config_file, '--work-dir', tmp_path)
    assert status == 0, printed
    model, _ = load_trained(load_config(config_file), tmp_path / 'iter_500.pth')
    photographs = sorted(real_images('coco_mini').glob('val2017/*.jpg'))[:6]
    scenes = sorted((ensure_shapes() / 'val2017').glob('*.jpg'))[:6]
    assert_trained_is_like(model, [*photographs, *scenes], tmp_path)


def assert_trained_is_like(model: nn.Module, paths: list[Path], folder: Path) -> None:
    network = DetectorNetwork(model)
    path, names = onnx_file(exported(network), network, folder)
    runs = network, in_onnxruntime(path, names), in_openvino(path, names)
    count = 0
    for path in paths:
        image = torch.from_numpy(mmcv.imrescale(mmcv.imread(path), (480, 320))).permute(2, 0, 1)
        size = tuple(image.shape[1:])
        sample = DetDataSample(metainfo=dict(img_shape=size))
        image = model.data_preprocessor(dict(inputs=[image], data_samples=[sample]))['inputs']
        (mine,) = found_by_mmdet(model, image, size)
        count += len(mine['scores'])
        for run in runs:
            with torch.no_grad():
                outputs = run(image, torch.tensor(size))
            assert_close(outputs, padded(mine, network.count))
    assert count > 5 * len(paths)


def padded(found: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """One image's detections as a batch of `count`."""
    missing = count - len(found['scores'])
    outputs = {name: F.pad(v, (0, 0) * (v.ndim - 1) + (0, missing))[None] for name, v in found.items()}
    return outputs | {'count': torch.tensor([count - missing])}
