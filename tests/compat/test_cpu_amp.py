"""AmpOptimWrapper on a machine without accelerator: bf16 autocast without scaler, fp16 with one, resumable."""

import pytest
import torch
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper, build_optim_wrapper

from hybrid_backbones.compat.amp import bf16_instructions

pytestmark = pytest.mark.skipif(get_device() != 'cpu', reason='this machine has an accelerator')


def _wrapper(model, **options):
    optimizer = dict(type='SGD', lr=0.1, momentum=0.9)
    return build_optim_wrapper(model, dict(type='AmpOptimWrapper', optimizer=optimizer, **options))


@pytest.mark.parametrize('dtype', [None, 'float16', 'bfloat16', torch.float16])
@pytest.mark.parametrize('loss_scale', ['dynamic', 512.0, dict(init_scale=512.0)], ids=['dynamic', 'static', 'dict'])
def test_trains(dtype, loss_scale):
    expected = torch.float16 if dtype in ('float16', torch.float16) else torch.bfloat16
    model = torch.nn.Linear(4, 1)
    wrapper = _wrapper(model, dtype=dtype, loss_scale=loss_scale, clip_grad=dict(max_norm=1.0), accumulative_counts=2)
    x, y = torch.randn(64, 4), torch.randn(64, 1)
    losses = []
    for _ in range(20):
        with wrapper.optim_context(model):
            out = model(x)
        assert out.dtype == expected
        loss = (out.float() - y).square().mean()
        losses.append(loss.item())
        wrapper.update_params(loss)
    assert losses[-1] < losses[0]
    scale = 1.0 if out.dtype == torch.bfloat16 else 65536.0 if loss_scale == 'dynamic' else 512.0
    assert wrapper.loss_scaler.get_scale() == scale


@pytest.mark.parametrize('loss_scale', ['unknown', 512, None])
def test_unknown_loss_scales_are_refused(loss_scale):
    with pytest.raises(TypeError, match='loss_scale='):
        _wrapper(torch.nn.Linear(4, 1), loss_scale=loss_scale)


def test_fp16_lowers_its_scale_instead_of_taking_a_step_that_overflowed():
    model = torch.nn.Linear(4, 1)
    wrapper = _wrapper(model, dtype='float16', loss_scale=dict(init_scale=2.0**40))
    before = model.weight.detach().clone()
    with wrapper.optim_context(model):
        loss = model(torch.randn(8, 4)).square().mean()
    wrapper.update_params(loss)
    assert torch.equal(model.weight, before)
    assert wrapper.loss_scaler.get_scale() == 2.0**39
    other = _wrapper(torch.nn.Linear(4, 1), dtype='float16')
    other.load_state_dict(wrapper.state_dict())
    assert other.loss_scaler.get_scale() == 2.0**39


def test_resumes():
    model = torch.nn.Linear(4, 1)
    wrapper = _wrapper(model)
    wrapper.update_params(model(torch.randn(8, 4)).square().mean())
    state = wrapper.state_dict()
    assert 'loss_scaler' not in state  # a GPU's scaler refuses an empty state
    other = _wrapper(torch.nn.Linear(4, 1))
    other.load_state_dict(state)
    buffers = [w.optimizer.state_dict()['state'][0]['momentum_buffer'] for w in (wrapper, other)]
    assert torch.equal(*buffers)


def test_resumes_a_run_of_a_gpu():
    wrapper = _wrapper(torch.nn.Linear(4, 1))
    scaler = dict(scale=65536.0, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000, _growth_tracker=7)
    wrapper.load_state_dict(wrapper.state_dict() | dict(loss_scaler=scaler))
    assert wrapper.loss_scaler.get_scale() == 1.0


def test_other_dtypes_are_refused():
    with pytest.raises(ValueError, match=r"dtype='float64'.*expected bfloat16.*or float16"):
        _wrapper(torch.nn.Linear(4, 1), dtype='float64')


def test_accelerators_are_left_to_mmengine(monkeypatch):
    """It then checks for the accelerator itself, which is not there."""
    import mmengine.device

    monkeypatch.setattr(mmengine.device, 'get_device', lambda: 'cuda')
    with pytest.raises(AssertionError, match='only available training on gpu'):
        AmpOptimWrapper(optimizer=torch.optim.SGD(torch.nn.Linear(4, 1).parameters(), lr=0.1))


@pytest.mark.parametrize(
    ('features', 'expected'),
    [
        ({}, ''),
        ({'amx_tile': False, 'avx512_bf16': True}, 'AVX512_BF16'),
        ({'amx_tile': True, 'avx512_bf16': True}, 'AMX'),
        ({'bf16': True}, 'Arm BF16'),
    ],
)
def test_bf16_instructions(monkeypatch, features, expected):
    for name in ('_is_amx_tile_supported', '_is_avx512_bf16_supported'):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: features, raising=False)
    assert bf16_instructions() == expected


def test_regions_keep_their_coordinates_among_bf16_features():
    from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor

    layer = dict(type='RoIAlign', output_size=2, sampling_ratio=1)
    extractor = SingleRoIExtractor(layer, out_channels=1, featmap_strides=[4])
    # The value of a pixel is its column, which bf16 holds exactly.
    features = (torch.arange(255.0).expand(1, 1, 8, 255)).contiguous()
    rois = torch.tensor([[0, 985.0, 0, 1003.0, 20.0]])  # bf16 would make 984 and 1004 of them
    expected = extractor((features,), rois)
    actual = extractor((features.bfloat16(),), rois)
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual, expected.bfloat16(), rtol=0, atol=0)
