"""`--fast-linear`: which class the linear layers of a run on a CPU have, and what a box head makes of it."""

import pytest
import torch
from engine.models import make_runner
from mmengine.registry import DefaultScope
from torch import nn

from hybrid_backbones.engine import run
from hybrid_backbones.layers.fast_linear import FastLinear, use_fast_linear


@pytest.mark.parametrize(('option', 'expected'), [('auto', FastLinear), ('off', nn.Linear)])
def test_a_run_has_the_layers_that_the_option_says(option, expected, tmp_path):
    cfg = make_runner(tmp_path).cfg
    cfg.experiment_name = f'{cfg.experiment_name} {option}'
    assert type(run._build(cfg, option).model.linear) is expected


@pytest.mark.slow  # it imports all of mmdet
def test_a_box_head_gives_the_same(monkeypatch):
    from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead

    monkeypatch.setenv('HYBRID_BACKBONES_PRODUCTS', 'packed')
    with DefaultScope.overwrite_default_scope('mmdet'):
        head = Shared2FCBBoxHead(in_channels=16, fc_out_channels=32, roi_feat_size=7, num_classes=3)
    regions = torch.randn(20, 16, 7, 7)
    expected = [*head(regions)]
    sum(y.square().sum() for y in expected).backward()
    grads = [parameter.grad.clone() for parameter in head.parameters()]
    assert use_fast_linear(head) == ['fc_cls', 'fc_reg', 'shared_fcs.0', 'shared_fcs.1']
    head.zero_grad()
    results = [*head(regions)]
    sum(y.square().sum() for y in results).backward()
    with torch.no_grad():
        inferred = head.eval()(regions)
    torch.testing.assert_close(results, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close([*inferred], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close([p.grad for p in head.parameters()], grads, rtol=1e-4, atol=1e-5)
