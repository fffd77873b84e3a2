"""The runtime without torch: files, images and what it refuses."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from hybrid_backbones.export import runtime
from hybrid_backbones.export.drawing import draw


@pytest.fixture
def segmentor(tmp_path):
    """A file that gives each pixel the class of its red channel, 0 or 1."""
    nodes = [
        helper.make_node('Gather', ['image', 'first'], ['red'], axis=3),
        helper.make_node('Cast', ['red'], ['logits'], to=TensorProto.FLOAT),
        helper.make_node('Cast', ['red'], ['labels'], to=TensorProto.UINT8),
    ]
    inputs = [helper.make_tensor_value_info('image', TensorProto.UINT8, ['n', 'h', 'w', 3])]
    outputs = [
        helper.make_tensor_value_info('labels', TensorProto.UINT8, ['n', 'h', 'w']),
        helper.make_tensor_value_info('logits', TensorProto.FLOAT, ['n', 'h', 'w']),
    ]
    first = helper.make_tensor('first', TensorProto.INT64, [], [0])
    graph = helper.make_graph(nodes, 'red', inputs, outputs, [first])
    path = tmp_path / 'red.onnx'
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9), path)
    write_meta(path)
    return path


def write_meta(path, **changes):
    meta = dict(
        format_version=runtime.FORMAT_VERSION,
        engine='onnxruntime',
        task='segmentation',
        classes=['sea', 'land'],
        outputs=['labels', 'logits'],
        input=dict(dtype='uint8', smallest=4),
        sha256={path.name: runtime.file_hash(path)},
    )
    runtime.meta_file(path).write_text(json.dumps(meta | changes))


def test_one_image_and_several(segmentor):
    model = runtime.DeployedModel(segmentor, threads=1)
    image = np.random.default_rng(0).integers(0, 2, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(model(image)['labels'], image[..., 0])
    results = model(np.stack([image, 1 - image]), outputs=['logits'])
    assert list(results) == ['logits'] and np.array_equal(results['logits'][1], 1 - image[..., 0])


@pytest.mark.parametrize(
    'image, said',
    [
        (np.zeros((5, 7), np.uint8), r'shape \(5, 7\): expected \(H, W, 3\)'),
        (np.zeros((5, 7, 4), np.uint8), r'\(5, 7, 4\)'),
        (np.zeros((5, 7, 3), np.uint16), 'image of uint16: the file takes uint8'),
        (np.zeros((5, 3, 3), np.uint8), '5 x 3 pixels: the network takes 4 and more'),
    ],
)
def test_images_that_are_refused(image, said, segmentor):
    with pytest.raises(ValueError, match=said):
        runtime.DeployedModel(segmentor)(image)


def test_files_that_are_refused(segmentor):
    with pytest.raises(FileNotFoundError, match=r'other\.onnx'):
        runtime.DeployedModel(segmentor.with_name('other.onnx'))
    write_meta(segmentor, format_version=runtime.FORMAT_VERSION + 1)
    with pytest.raises(ValueError, match='install a newer one'):
        runtime.DeployedModel(segmentor)
    write_meta(segmentor)
    segmentor.write_bytes(segmentor.read_bytes() + b' ')
    with pytest.raises(ValueError, match=r'is not the file that red\.onnx\.json describes'):
        runtime.DeployedModel(segmentor)
    runtime.meta_file(segmentor).unlink()
    with pytest.raises(FileNotFoundError, match=r'red\.onnx\.json'):
        runtime.DeployedModel(segmentor)


def test_unknown_output(segmentor):
    with pytest.raises(ValueError, match='no output masks'):
        runtime.DeployedModel(segmentor)(np.zeros((5, 7, 3), np.uint8), ['masks'])


def test_image_files(tmp_path):
    Image.fromarray(np.full((4, 6), 7, np.uint8)).save(tmp_path / 'grey.png')
    assert np.array_equal(runtime.read_image(tmp_path / 'grey.png'), np.full((4, 6, 3), 7))
    Image.fromarray(np.full((4, 6), 700, np.uint16)).save(tmp_path / 'deep.png')
    with pytest.raises(ValueError, match='more than 8 bits'):
        runtime.read_image(tmp_path / 'deep.png')
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / 'turned.jpg', exif=exif)
    assert runtime.read_image(tmp_path / 'turned.jpg').shape == (6, 4, 3)


def test_command_without_torch_and_openmmlab(segmentor, tmp_path):
    images = tmp_path / 'images'
    images.mkdir()
    for name in ('a', 'b'):
        Image.fromarray(np.ones((20, 30, 3), np.uint8)).save(images / f'{name}.png')
    code = f"""
        import runpy, sys
        for name in ('torch', 'torchvision', 'mmengine', 'mmcv', 'cv2'):
            sys.modules[name] = None
        sys.argv = ['runtime', {str(segmentor)!r}, {str(images)!r}, '-o', {str(tmp_path / 'out')!r}]
        runpy.run_module('hybrid_backbones.export.runtime', run_name='__main__')
    """
    done = subprocess.run([sys.executable, '-c', f'if True:{code}'], capture_output=True, text=True)
    assert done.stdout.split() == [str(tmp_path / f'out/{name}.png') for name in ('a', 'b')], done.stderr
    with Image.open(tmp_path / 'out/a.png') as picture:
        assert picture.size == (30, 20 + 14)  # a line for the only class


def test_pictures_of_detections():
    image = np.zeros((40, 60, 3), np.uint8)
    masks = np.zeros((3, 40, 60), bool)
    masks[0, 10:20, 10:30] = masks[1, 25:35, 35:50] = True
    results = dict(
        count=np.int64(2),
        boxes=np.array([[10, 10, 30, 20], [35, 25, 50, 35], [0, 0, 0, 0]], np.float32),
        scores=np.array([0.9, 0.2, 0], np.float32),
        labels=np.array([1, 0, -1]),
        masks=masks,
    )
    drawn = np.asarray(draw(image, results, dict(task='detection', classes=['ship', 'boat']), score_thr=0.3))
    assert drawn[15, 20].any() and not drawn[30, 42].any()
    assert not np.array_equal(drawn[15, 20], drawn[10, 20])  # the border is not blended
