"""How the test pipeline and the data preprocessor of a config make the network's input from an image."""

from collections.abc import Mapping
from typing import Any

from ..datasets.roots import walk
from .preprocessing import InputRule

# Transforms of a test pipeline that leave the image as it is.
_NEUTRAL = ('LoadImageFromFile', 'LoadAnnotations', 'PackDetInputs', 'PackSegInputs')


def read_input_rule(cfg: Mapping[str, Any]) -> InputRule:
    """The rule of a config of mmdet or mmseg.

    Raises:
        ValueError: A part of the test pipeline or of the data preprocessor has no counterpart here; which.
    """
    given = cfg['model'].get('data_preprocessor') or {}
    test_cfg = given.get('test_cfg') or {}
    if test_cfg.get('size'):
        raise ValueError(
            f'data_preprocessor.test_cfg.size={test_cfg["size"]} pads to a fixed size, which is not exported; give '
            'size_divisor, or nothing'
        )
    mean, std = given.get('mean') or [0.0] * 3, given.get('std') or [1.0] * 3
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(f'data_preprocessor.mean={mean}, std={std}: images of three channels are exported')
    scale, keep_ratio = _resize(_test_pipeline(cfg))
    return InputRule(
        scale=scale,
        keep_ratio=keep_ratio,
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
        channels='RGB' if given.get('bgr_to_rgb') or given.get('rgb_to_bgr') else 'BGR',
        divisor=int(given.get('pad_size_divisor') or test_cfg.get('size_divisor') or 1),
        pad_value=float(given.get('pad_value') or given.get('pad_val') or 0),
    )


def _test_pipeline(cfg: Mapping[str, Any]) -> list[dict]:
    """The first pipeline of the test dataset, without what `load_config` wraps its transforms in."""
    pipelines: list[list[dict]] = []
    walk(
        cfg['test_dataloader']['dataset'],
        lambda node: pipelines.append(node['pipeline']) if 'pipeline' in node else None,
    )
    if not pipelines:
        raise ValueError('the dataset of test_dataloader has no pipeline, which says how an image is resized')
    return [step.get('transform', step) for step in pipelines[0]]


def _resize(pipeline: list[dict]) -> tuple[tuple[int, int] | None, bool]:
    """`scale` and `keep_ratio` of the only transform that resizes, if there is one."""
    others = [step for step in pipeline if str(step['type']).rpartition('.')[2] not in _NEUTRAL]
    if not others:
        return None, True
    step = others[0]
    if len(others) > 1 or str(step['type']).rpartition('.')[2] != 'Resize':
        names = ', '.join(str(step['type']) for step in others)
        raise ValueError(f'the test pipeline has {names}; exported are one Resize or none, and {", ".join(_NEUTRAL)}')
    if step.get('interpolation', 'bilinear') != 'bilinear':
        raise ValueError(f'Resize(interpolation={step["interpolation"]!r}) of the test pipeline: bilinear is exported')
    scale = step.get('scale')
    if scale is None:
        if step.get('scale_factor') != 1.0:
            raise ValueError(
                f'Resize(scale_factor={step.get("scale_factor")}) of the test pipeline: give scale=(longer, shorter)'
            )
        return None, True
    width, height = (scale, scale) if isinstance(scale, int) else scale
    return ((max(width, height), min(width, height)) if step.get('keep_ratio') else (width, height)), bool(
        step.get('keep_ratio')
    )
