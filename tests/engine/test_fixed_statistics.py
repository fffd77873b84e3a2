"""BatchNorm that keeps statistics which nothing has set is spoken of."""

import logging

import pytest
from engine.models import NANO
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from torch import nn

from hybrid_backbones.engine.training_hooks import FixedStatisticsHook, unset_statistics


class Trained:
    """As much of a runner as the hook looks at."""

    def __init__(self, **options) -> None:
        self.model = nn.Sequential(MODELS.build(NANO | options), nn.BatchNorm2d(4))


@pytest.mark.parametrize('options', [dict(norm_eval=True), dict(frozen_stages=0)])
def test_fixed_statistics_without_weights_are_spoken_of(options, caplog):
    runner = Trained(**options)
    assert unset_statistics(runner.model) == ['0.downsample_layers.0.2', '0.downsample_layers.0.5']
    MMLogger.get_instance('fixed').addHandler(caplog.handler)
    with caplog.at_level(logging.WARNING):
        FixedStatisticsHook().before_train(runner)
    assert 'norm_eval=False' in caplog.text
    assert '2 BatchNorm layers' in caplog.text


def test_statistics_that_were_loaded_or_learn_are_not():
    assert not unset_statistics(Trained().model)
    model = Trained(norm_eval=True).model
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
    assert not unset_statistics(model)
