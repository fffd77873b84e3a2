"""Parts that do not fit together are refused, and the message says what fits."""

import pytest
import torch
from engine.models import NANO, TinyDetector
from mmengine.registry import MODELS
from torch import nn

from hybrid_backbones.engine.model_checks import check_channels, check_state_dict


class Head(nn.Module):
    def __init__(self, in_channels, in_index) -> None:
        super().__init__()
        self.in_channels, self.in_index = in_channels, in_index


def segmentor(decode_head: Head, auxiliary_head: nn.Module | None = None) -> nn.Module:
    model = nn.Module()
    model.backbone, model.decode_head = MODELS.build(NANO), decode_head
    if auxiliary_head is not None:
        model.auxiliary_head = auxiliary_head
    return model


def test_neck():
    backbone = MODELS.build(NANO)
    check_channels(TinyDetector(backbone))
    with pytest.raises(
        ValueError,
        match=r'model\.neck\.in_channels is \[8, 16, 24, 64\], but Conv2Former puts out \(8, 16, 24, 32\) channels: '
        r'write neck=dict\(in_channels=\[8, 16, 24, 32\]\)',
    ):
        check_channels(TinyDetector(backbone, [8, 16, 24, 64]))
    with pytest.raises(ValueError, match=r'is \[8, 16\]'):
        check_channels(TinyDetector(backbone, [8, 16]))


def test_heads():
    check_channels(segmentor(Head([8, 16, 24, 32], [0, 1, 2, 3]), Head(24, 2)))
    check_channels(segmentor(Head(32, -1), nn.ModuleList([Head(24, 2), Head(16, 1)])))
    with pytest.raises(ValueError, match=r'model\.decode_head\.in_channels is \[8, 16, 24, 96\]'):
        check_channels(segmentor(Head([8, 16, 24, 96], [0, 1, 2, 3])))
    with pytest.raises(ValueError, match=r'write auxiliary_head=dict\(in_channels=24\)'):
        check_channels(segmentor(Head(32, 3), Head(25, 2)))
    with pytest.raises(ValueError, match='in_index=4, but the backbone has 4 outputs'):
        check_channels(segmentor(Head(32, 4)))


def test_foreign_backbones_are_left_alone():
    check_channels(TinyDetector(nn.Linear(1, 1), [1, 2, 3]))


def test_state_dict():
    model = TinyDetector(MODELS.build(NANO))
    check_state_dict(model, model.state_dict(), 'FILE')
    check_state_dict(model, {f'module.{key}': value for key, value in model.state_dict().items()}, 'FILE')
    check_state_dict(model, {**model.state_dict(), 'mask_head.x': torch.ones(1)}, 'FILE', unused=('mask_head.',))

    larger = dict(NANO, arch=dict(depths=(1, 1, 3, 1), dims=(8, 16, 24, 32), kernel_size=3))
    # All of the smaller model's weights are in the larger one's, with the same shapes: silent nonsense if loaded.
    with pytest.raises(
        ValueError, match=r'FILE is a checkpoint of another model.*TinyDetector with Conv2Former'
    ) as error:
        check_state_dict(model, TinyDetector(MODELS.build(larger)).state_dict(), 'FILE')
    assert 'the checkpoint has and the config lacks: backbone.stages.2.2.' in str(error.value)
    assert 'in all)' in str(error.value)

    wider = dict(NANO, arch=dict(depths=(1, 1, 2, 1), dims=(8, 16, 24, 40), kernel_size=3))
    with pytest.raises(ValueError, match=r'backbone\.stages\.3.* \(40.*\) against \(32') as error:
        check_state_dict(model, TinyDetector(MODELS.build(wider)).state_dict(), 'FILE')
    with pytest.raises(ValueError, match='the config has and the checkpoint lacks: backbone'):
        check_state_dict(model, {}, 'FILE')
