"""Layer-wise decay over every registered backbone: each parameter once, rates monotone from stem to head."""

import functools
from itertools import pairwise

import pytest
import torch
from engine.models import NANO, TinyDetector
from families import NAMES
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from torch import nn

from hybrid_backbones import create_backbone
from hybrid_backbones._meta import meta_device
from hybrid_backbones.engine.layer_decay import LayerDecayOptimWrapperConstructor, layer_id, locate_backbone


def groups_of(model: nn.Module, lr: float = 1e-3, **paramwise) -> list[dict]:
    optimizer = dict(type='AdamW', lr=lr, weight_decay=0.05)
    return LayerDecayOptimWrapperConstructor(dict(optimizer=optimizer), paramwise)(model).optimizer.param_groups


@functools.cache
def detector(name: str) -> TinyDetector:
    with meta_device():
        # Output norms belong to the heads' layer; some families have none unless asked.
        return TinyDetector(create_backbone(name, out_norm=True))


@pytest.mark.parametrize('decay_type', ['layer_wise', 'stage_wise'])
@pytest.mark.parametrize('name', NAMES)
def test_every_variant(name, decay_type):
    model = detector(name)
    for num_layers in (6, 12):
        groups = groups_of(model, decay_rate=0.9, num_layers=num_layers, decay_type=decay_type)
        lr = {id(param): group['lr'] for group in groups for param in group['params']}
        # Each parameter is in exactly one group.
        assert sum(len(group['params']) for group in groups) == len(lr) == len(list(model.parameters()))

        # From stem to head in the order of depth, the rate never falls; the stem's is lowest, the head's is the base.
        backbone = model.backbone
        depths = [(backbone.layer_position(key)[1], lr[id(param)]) for key, param in backbone.named_parameters()]
        rates = [rate for _, rate in sorted(depths)]
        assert all(low <= high * (1 + 1e-9) for low, high in pairwise(rates))
        assert rates[0] == pytest.approx(1e-3 * 0.9 ** (num_layers + 1))
        assert rates[-1] == pytest.approx(1e-3)
        assert {lr[id(param)] for part in (model.neck, model.bbox_head) for param in part.parameters()} == {1e-3}


def test_layer_wise_uses_every_layer():
    for name in NAMES:
        backbone = detector(name).backbone
        for num_layers in (6, 12):
            ids = {layer_id(backbone, key, num_layers, 'layer_wise') for key, _ in backbone.named_parameters()}
            assert {0, num_layers + 1} < ids <= set(range(num_layers + 2)), name
            assert len(ids) == min(num_layers, backbone.num_blocks) + 2, name


def test_scales_and_weight_decay():
    model = TinyDetector(MODELS.build(NANO))
    groups = groups_of(model, decay_rate=0.5, num_layers=5, decay_type='layer_wise')
    where = {id(param): group for group in groups for param in group['params']}
    params = dict(model.named_parameters())

    # Five blocks, five layers: block d is layer d, the stem 0, the rest 6.
    for name, layer in {
        'backbone.downsample_layers.0.0.weight': 0,
        'backbone.stages.0.0.attn.v.weight': 1,
        'backbone.downsample_layers.2.1.weight': 3,
        'backbone.stages.2.1.attn.v.weight': 4,
        'backbone.stages.3.0.mlp.fc1.weight': 5,
        'backbone.out_norms.0.weight': 6,
        'neck.weight': 6,
    }.items():
        assert where[id(params[name])]['lr'] == pytest.approx(1e-3 * 0.5 ** (6 - layer)), name
    stage_wise = groups_of(model, decay_rate=0.5, num_layers=5, decay_type='stage_wise')
    where_stage = {id(param): group for group in stage_wise for param in group['params']}
    # A downsampling layer belongs to the stage behind it.
    assert where_stage[id(params['backbone.downsample_layers.2.1.weight'])]['lr'] == pytest.approx(1e-3 * 0.5**3)
    assert where_stage[id(params['backbone.stages.2.1.attn.v.weight'])]['lr'] == pytest.approx(1e-3 * 0.5**3)

    for name, param in params.items():
        decays = param.ndim > 1
        assert where[id(param)]['weight_decay'] == (0.05 if decays else 0.0), name


def test_no_weight_decay_of_tables():
    backbone = MODELS.build(NANO)
    backbone.pos_embed = nn.Parameter(torch.zeros(1, 4, 8))
    backbone.no_weight_decay = ('pos_embed',)
    position = backbone.layer_position
    backbone.layer_position = lambda name: (-1, 0) if name == 'pos_embed' else position(name)
    groups = groups_of(TinyDetector(backbone), decay_rate=0.5, num_layers=5)
    (group,) = (group for group in groups if any(param is backbone.pos_embed for param in group['params']))
    assert group['weight_decay'] == 0


def test_frozen_parameters_are_left_out():
    model = TinyDetector(MODELS.build(dict(NANO, frozen_stages=2)))
    trained = [param for param in model.parameters() if param.requires_grad]
    groups = groups_of(model, decay_rate=0.5, num_layers=6)
    assert sum(len(group['params']) for group in groups) == len(trained) < len(list(model.parameters()))


def test_found_by_mmengine_in_wrapped_model():
    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

    cfg = dict(
        type='OptimWrapper',
        constructor='LayerDecayOptimWrapperConstructor',
        paramwise_cfg=dict(decay_rate=0.5, num_layers=5),
        optimizer=dict(type='SGD', lr=1.0, weight_decay=0.1),
    )
    model = TinyDetector(MODELS.build(NANO))
    plain, wrapped = (build_optim_wrapper(m, cfg).optimizer.param_groups for m in (model, Wrapper(model)))
    assert [group['lr'] for group in plain] == [group['lr'] for group in wrapped]
    assert len({group['lr'] for group in plain}) == 7


def test_bare_backbone():
    prefix, backbone = locate_backbone(MODELS.build(NANO))
    assert prefix == ''
    assert len(groups_of(backbone, decay_rate=0.5, num_layers=5)) == 13  # output norms have no matrices


def test_errors_name_the_problem():
    with pytest.raises(TypeError, match=r'depth of each parameter.*Linear does not'):
        groups_of(TinyDetector(nn.Linear(1, 1)), decay_rate=0.5, num_layers=5)
    with pytest.raises(TypeError, match='no module called `backbone`'):
        groups_of(nn.Sequential(nn.Linear(1, 1)), decay_rate=0.5, num_layers=5)
    model = TinyDetector(MODELS.build(NANO))
    with pytest.raises(ValueError, match='num_layers'):
        groups_of(model, decay_rate=0.5)
    with pytest.raises(ValueError, match=r"one of .*'layer_wise'.*'layerwise'"):
        groups_of(model, decay_rate=0.5, num_layers=5, decay_type='layerwise')
    with pytest.raises(ValueError, match=r'in \(0, 1\], got 1\.5'):
        groups_of(model, decay_rate=1.5, num_layers=5)
    with pytest.raises(ValueError, match='4 stages'):
        groups_of(model, decay_rate=0.5, num_layers=3, decay_type='stage_wise')
