"""The file's preprocessing against mmcv's and the data preprocessors of mmdet and mmseg."""

import mmcv
import numpy as np
import pytest
import torch
from mmdet.models import DetDataPreprocessor
from mmengine.registry import MODELS
from mmseg.structures import SegDataSample

from hybrid_backbones.engine.config import read_config
from hybrid_backbones.export.input_rule import read_input_rule
from hybrid_backbones.export.preprocessing import InputRule, Preprocessing, resize, target_size

COCO = InputRule(
    scale=(1333, 800),
    keep_ratio=True,
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    channels='RGB',
    divisor=32,
    pad_value=0.0,
)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth, as photographs are, with some noise."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    smooth = mmcv.imresize(coarse, (width, height))
    return np.clip(smooth + random.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize('height, width', [(480, 640), (427, 640), (1080, 1920), (500, 375), (37, 53), (800, 1333)])
def test_pixels_are_those_of_mmcv(height, width):
    image = picture(height, width)
    expected = mmcv.imrescale(image, COCO.scale)
    size = target_size(torch.tensor([height, width]), COCO.scale, keep_ratio=True).tolist()
    assert size == list(expected.shape[:2])
    resized = resize(torch.from_numpy(image)[None], *size)[0].numpy()
    difference = np.abs(resized.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.005


def test_float_pixels_are_those_of_mmcv():
    image = picture(60, 90).astype(np.float32)
    resized = resize(torch.from_numpy(image)[None], 77, 131)[0].numpy()
    np.testing.assert_allclose(resized, mmcv.imresize(image, (131, 77)), atol=1e-2)


def test_sizes_are_those_of_mmcv():
    random = np.random.default_rng(0)
    for height, width in random.integers(10, 3000, (2000, 2)):
        expected = mmcv.image.geometric.rescale_size((int(width), int(height)), COCO.scale)
        assert tuple(target_size(torch.tensor([height, width]), COCO.scale, True).tolist()) == expected[::-1]
    assert target_size(torch.tensor([30, 50]), (640, 480), keep_ratio=False).tolist() == [480, 640]


@pytest.mark.parametrize('channels', ['RGB', 'BGR'])
def test_input_is_that_of_the_data_preprocessor(channels):
    rule = InputRule(**{**vars(COCO), 'scale': None, 'channels': channels})
    images = np.stack([picture(70, 101, seed) for seed in range(2)])
    inputs, size, original = Preprocessing(rule)(torch.from_numpy(images))
    options = dict(mean=rule.mean, std=rule.std, bgr_to_rgb=channels == 'RGB', pad_size_divisor=32)
    read = [torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1) for image in images]  # mmcv reads BGR
    expected = DetDataPreprocessor(**options)(dict(inputs=read))['inputs']
    assert inputs.shape == (2, 3, 96, 128)
    assert torch.equal(inputs, expected)
    assert size.tolist() == original.tolist() == [70, 101]


def test_rule_of_a_detector_and_of_a_segmentor():
    assert read_input_rule(read_config('hybrid_backbones::maskrcnn_conv2former_t_coco.py')) == COCO
    rule = read_input_rule(read_config('hybrid_backbones::upernet_conv2former_t_ade20k.py'))
    assert (rule.scale, rule.keep_ratio, rule.divisor) == ((2048, 512), True, 1)


@pytest.mark.parametrize(
    'change, named',
    [
        (lambda cfg: cfg.test_dataloader.dataset.pipeline.insert(1, dict(type='RandomFlip', prob=1.0)), 'RandomFlip'),
        (lambda cfg: cfg.test_dataloader.dataset.pipeline[1].update(scale=None, scale_factor=0.5), 'scale_factor=0.5'),
        (lambda cfg: cfg.test_dataloader.dataset.pipeline[1].update(interpolation='bicubic'), 'bicubic'),
        (lambda cfg: cfg.model.data_preprocessor.update(mean=[0.5], std=[1]), 'mean=\\[0.5\\]'),
        (lambda cfg: cfg.model.data_preprocessor.update(test_cfg=dict(size=(9, 9))), 'test_cfg.size'),
    ],
)
def test_what_has_no_counterpart_is_refused(change, named):
    cfg = read_config('hybrid_backbones::maskrcnn_conv2former_t_coco.py')
    change(cfg)
    with pytest.raises(ValueError, match=named):
        read_input_rule(cfg)


@pytest.mark.parametrize('test_cfg', [None, dict(size_divisor=32)])
def test_segmentors_pad_as_configured(test_cfg):
    cfg = read_config('hybrid_backbones::upernet_conv2former_t_ade20k.py')
    cfg.model.data_preprocessor.test_cfg = test_cfg
    image = torch.from_numpy(picture(65, 70)[..., ::-1].copy()).permute(2, 0, 1)
    cfg.test_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    inputs, *_ = Preprocessing(read_input_rule(cfg))(image.permute(1, 2, 0).flip(-1)[None])
    preprocessor = MODELS.build(dict(cfg.model.data_preprocessor, _scope_='mmseg'))
    expected = preprocessor(dict(inputs=[image], data_samples=[SegDataSample()]))['inputs']
    assert torch.equal(inputs, expected)
