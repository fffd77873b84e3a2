"""`load_from` takes the weights of the model wherever a file nests them, or is refused with what would match."""

import logging

import pytest
import torch
from engine.models import NANO, TinyDetector, make_runner
from mmengine.registry import MODELS
from torch import nn

from hybrid_backbones.checkpoints.errors import CheckpointError, WrongModelError
from hybrid_backbones.engine.loading import choose_part


class Detector(TinyDetector):
    """A neck and a head that are less than a tenth of the model's tensors."""


@pytest.fixture(scope='module')
def model() -> nn.Module:
    torch.manual_seed(0)
    return Detector(MODELS.build(NANO))


def state_of(model: nn.Module, prefix: str = '', shift: float = 0.0) -> dict[str, torch.Tensor]:
    return {
        prefix + key: value + shift if value.is_floating_point() else value for key, value in model.state_dict().items()
    }


def assert_same(part, model: nn.Module, shift: float = 0.0) -> None:
    expected = state_of(model, shift=shift)
    assert part.state.keys() == expected.keys()
    assert all(torch.equal(part.state[key], value) for key, value in expected.items())


WRAPPERS = ['', 'module.', '_orig_mod.', '_orig_mod.module.', 'module._orig_mod.', 'module.module._orig_mod.']


@pytest.mark.parametrize('prefix', [*WRAPPERS, 'model.', 'model._orig_mod.', 'net.detector.', 'ema_model.module.'])
@pytest.mark.parametrize('nest', ['', 'state_dict', 'model', 'state_dict_ema', 'ema/params'])
def test_the_weights_are_found(model, nest, prefix):
    content = state_of(model, prefix)
    for name in reversed(nest.split('/') if nest else []):
        content = {name: content, 'epoch': 3}
    assert_same(choose_part(content, model, 'FILE'), model)


def test_compiled_parts(model):
    """torch.compile of the backbone alone leaves `backbone._orig_mod.`."""
    compiled = {key.replace('backbone.', 'backbone._orig_mod.'): value for key, value in state_of(model).items()}
    assert_same(choose_part(dict(state_dict=compiled), model, 'FILE'), model)


def test_a_file_of_lightning(model, caplog):
    """Its losses' buffers, and an averaged model's counter, are left out."""
    content = dict(state_dict={**state_of(model, 'model.'), 'criterion.weight': torch.ones(4)}, epoch=1)
    with caplog.at_level(logging.INFO):
        assert_same(choose_part(content, model, 'FILE'), model)
    assert_same(choose_part({'n_averaged': torch.tensor(3), **state_of(model, 'module.')}, model, 'FILE'), model)


def test_what_mmengine_would_load_comes_first(model):
    """MMEngine's own files hold the averaged weights or the plain ones of EMAHook beside them."""
    content = dict(state_dict=state_of(model), ema_state_dict=state_of(model, 'module.', 1.0), state_dict_ema=None)
    assert_same(choose_part(content, model, 'FILE'), model)
    assert_same(choose_part(content, model, 'FILE', 'ema_state_dict'), model, 1.0)


@pytest.mark.parametrize(
    ('content', 'names'),
    [
        (lambda m: dict(state_dict=state_of(m, 'teacher.', 1.0) | state_of(m, 'student.')), ['teacher', 'student']),
        (lambda m: dict(model=state_of(m), ema=state_of(m, shift=1.0)), ['model', 'ema']),
    ],
)
def test_of_several_none_is_taken(model, content, names):
    content = content(model)
    nest = 'state_dict/' if 'state_dict' in content else ''
    with pytest.raises(WrongModelError) as error:
        choose_part(content, model, 'FILE')
    assert all(f'--cfg-options load_part={nest}{name}' in str(error.value) for name in names)
    for name in names:
        assert_same(choose_part(content, model, 'FILE', nest + name), model, float(name in ('teacher', 'ema')))
    with pytest.raises(CheckpointError, match=f"load_part='x': no such part of FILE.*{nest}{names[0]}"):
        choose_part(content, model, 'FILE', 'x')


def test_arrays_are_tensors(model):
    content = dict(state_dict={key: value.numpy() for key, value in state_of(model).items()})
    assert_same(choose_part(content, model, 'FILE'), model)


@pytest.mark.parametrize('content', [[{}], torch.ones(3), None])
def test_what_is_no_dict_is_refused(model, content):
    with pytest.raises(WrongModelError, match=rf'FILE holds a {type(content).__name__}, expected a dict of tensors'):
        choose_part(content, model, 'FILE')


def test_a_trunk_is_refused(model):
    """The head and neck would be random."""
    trunk = model.backbone.state_dict()
    for content in (trunk, dict(model=trunk), dict(state_dict={f'backbone.{k}': v for k, v in trunk.items()})):
        other = Detector(MODELS.build(NANO))
        other.bbox_head = nn.Sequential(*(nn.Linear(4, 4) for _ in range(20)))
        with pytest.raises(WrongModelError) as error:
            choose_part(content, other, 'FILE')
        assert 'model.backbone.init_cfg.checkpoint=FILE' in str(error.value)
        assert "in the model's backbone" in str(error.value)
    part = choose_part(content, other, 'FILE', 'state_dict/backbone')
    assert part.state.keys() == {f'backbone.{key}' for key in trunk}


def test_another_model_is_refused(model):
    other = {f'layers.{i}.weight': torch.ones(3, 3) for i in range(20)}
    for content in (other, dict(state_dict=other), dict(weights=other), {}):
        with pytest.raises(WrongModelError, match='No part of it matches'):
            choose_part(content, model, 'FILE')


def test_another_number_of_classes_passes(model):
    state = state_of(model)
    state['bbox_head.weight'], state['bbox_head.bias'] = torch.ones(9, 4), torch.ones(9)
    part = choose_part(dict(state_dict=state), model, 'FILE')
    assert part.matched == part.needed - 2


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_values_that_are_not_finite_are_refused(model, value):
    state = state_of(model)
    state['neck.bias'] = torch.full_like(state['neck.bias'], value)
    with pytest.raises(CheckpointError, match=r'FILE has NaN or infinity in neck\.bias'):
        choose_part(state, model, 'FILE')
    unread = {**state_of(model), 'mask_head.bias': torch.tensor([value])}
    assert choose_part(unread, model, 'FILE', unused=('mask_head.',)).matched


@pytest.mark.parametrize('hooks', [('LoadMatchingHook',), ('StrictCheckpointHook',), ('LoadMatchingHook', 'EMAHook')])
def test_a_run_starts_from_them(tmp_path, hooks):
    path = tmp_path / 'foreign.pth'
    weights = {'model.linear.weight': torch.tensor([[3.0, 4.0]]), 'model.linear.bias': torch.tensor([5.0])}
    torch.save(dict(model=weights, args=[1]), path)
    runner = make_runner(tmp_path, load_from=str(path), custom_hooks=[dict(type=hook) for hook in hooks])
    runner.call_hook('before_run')
    runner.load_or_resume()
    assert runner.model.linear.bias.item() == 5.0
    torch.save(dict(model=dict(other=torch.ones(1))), path)
    runner = make_runner(tmp_path, load_from=str(path), custom_hooks=[dict(type=hook) for hook in hooks])
    runner.call_hook('before_run')
    with pytest.raises(WrongModelError, match=r'foreign\.pth'):
        runner.load_or_resume()


@pytest.mark.parametrize('kept', [0, 300])
def test_a_file_that_is_cut_short_is_named(tmp_path, kept):
    path = tmp_path / 'cut.pth'
    torch.save(dict(state_dict=dict(weight=torch.ones(500))), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises((EOFError, RuntimeError), match=r'cut\.pth is empty, damaged or cut short'):
        make_runner(tmp_path, load_from=str(path)).load_or_resume()
