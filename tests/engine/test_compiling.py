"""`--compile`: backbone and neck compute what they do uncompiled, and what is missing is said before training."""

import pytest
import torch
from engine.models import make_image_runner
from torch import nn

from hybrid_backbones.engine import compiling
from hybrid_backbones.engine.compiling import check_compiler, compile_parts

ONE_STAGE = dict(out_indices=(0,))


def test_compiled_training_equals_eager(tmp_path):
    """By a backend that needs no compiler; with averaged weights, which copy the compiled model."""
    runners = [
        make_image_runner(tmp_path / name, max_iters=2, backbone=ONE_STAGE, custom_hooks=[dict(type='EMAHook')])
        for name in ('eager', 'compiled')
    ]
    keys = list(runners[1].model.state_dict())
    assert compile_parts(runners[1].model, 'aot_eager') == ['backbone', 'neck']
    assert list(runners[1].model.state_dict()) == keys
    torch._dynamo.utils.counters.clear()
    for runner in runners:
        runner.train()
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] > 0
    for ours, theirs in zip(*(runner.model.parameters() for runner in runners), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_modules_of_compiled_parts_are_named_when_a_loss_is_not_finite(tmp_path):
    runner = make_image_runner(tmp_path, backbone=ONE_STAGE)
    runner.model.neck = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Hardshrink(lambd=float('nan')), nn.LogSigmoid())
    runner.model.neck[2].forward = lambda x: x / 0
    compile_parts(runner.model, 'eager')
    with pytest.raises(FloatingPointError, match=r'at iteration 1 .*from finite inputs, is neck\.2 \(LogSigmoid\)'):
        runner.train()


def test_missing_compiler_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(compiling.shutil, 'which', lambda name: None)
    monkeypatch.delenv('CXX', raising=False)
    with pytest.raises(
        RuntimeError, match=r'there is no g\+\+ nor clang\+\+ nor cl here: install one .*leave out --compile'
    ):
        check_compiler('inductor')
    monkeypatch.setenv('CXX', 'my-compiler')
    with pytest.raises(RuntimeError, match='there is no my-compiler here'):
        check_compiler('inductor')


def test_failing_backend_is_said_before_training(monkeypatch):
    def fail(*_, **__):
        raise OSError('Python.h: no such file')

    monkeypatch.setattr(torch, 'compile', fail)
    with pytest.raises(RuntimeError, match=r'backend aot_eager failed .*OSError: Python\.h: no such file'):
        check_compiler('aot_eager')
    with pytest.raises(ValueError, match=r'--compile inductr: expected one of .*inductor'):
        check_compiler('inductr')


def test_nothing_to_compile():
    with pytest.raises(ValueError, match='Linear has neither'):
        compile_parts(nn.Linear(1, 1), 'eager')
