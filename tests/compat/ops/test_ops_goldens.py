"""The stand-ins against inputs, outputs and gradients of mmcv's compiled operators, called as detectors call them."""

import json

import mmcv.ops
import numpy as np
import pytest
import torch
from goldens import golden_file
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
from mmdet.models.necks import DyHead

# The cases of cases.json by how they are called; `test_every_case_is_covered` keeps the lists complete.
SUPPRESSION = [
    'nms_offset0',
    'nms_offset1',
    'nms_score_max',
    'soft_nms_linear',
    'soft_nms_gaussian',
    'soft_nms_naive',
    'batched_nms',
]
ROI_ALIGN = [f'roi_align_{mode}_sr{ratio}_aligned{a}' for mode in ('avg', 'max') for ratio in (0, 2) for a in (0, 1)]
DEFORM = ['deform_conv', 'deform_conv_groups2_dg2_s2', 'deform_conv_dil2']
MODULATED = ['modulated_deform_conv', 'modulated_deform_conv_groups2_dg2_s2']
OVERLAPS = ['bbox_overlaps', 'box_iou_rotated']
ATTENTION = ['ms_deform_attn']


CASES = {case['name']: case for case in json.loads(golden_file('operators', 'cases.json').read_text())['cases']}


@pytest.fixture
def load(device):
    """Arguments and arrays of a case, the latter on the device."""

    def load(name):
        arguments = {key: value for key, value in CASES[name]['call'].items() if key != 'op'}
        with np.load(golden_file('operators', f'{name}.npz')) as arrays:
            return arguments, {key: torch.from_numpy(array).to(device) for key, array in arrays.items()}

    return load


def check(function, arrays, gradients):
    """Compare the output with the golden one, then the gradients, named input -> golden."""
    leaves = {name: arrays[name].requires_grad_() for name in gradients}
    output = function()
    torch.testing.assert_close(output, arrays['output'], rtol=1e-5, atol=1e-5)
    output.backward(arrays['grad_output'])
    for name, golden in gradients.items():
        torch.testing.assert_close(leaves[name].grad, arrays[golden], rtol=1e-4, atol=1e-4)


def test_every_case_is_covered():
    available = {name for name, case in CASES.items() if 'call' in case}
    assert available == {*SUPPRESSION, *ROI_ALIGN, *DEFORM, *MODULATED, *OVERLAPS, *ATTENTION}


@pytest.mark.parametrize('name', SUPPRESSION)
def test_suppression(load, name):
    arguments, a = load(name)
    if name == 'batched_nms':
        dets, keep = mmcv.ops.batched_nms(a['boxes'], a['scores'], a['idxs'], **arguments)
    else:
        function = mmcv.ops.soft_nms if name.startswith('soft') else mmcv.ops.nms
        dets, keep = function(a['boxes'], a['scores'], **arguments)
    assert torch.equal(keep, a['keep'])
    torch.testing.assert_close(dets, a['dets'], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', ROI_ALIGN)
def test_roi_align(load, name):
    arguments, a = load(name)
    order = ('output_size', 'spatial_scale', 'sampling_ratio', 'pool_mode', 'aligned')
    settings = [arguments[key] for key in order]
    check(lambda: mmcv.ops.roi_align(a['input'], a['rois'], *settings), a, {'input': 'grad_input'})


def convolution_settings(arguments):
    return [arguments[key] for key in ('stride', 'padding', 'dilation', 'groups', 'deform_groups')]


@pytest.mark.parametrize('name', DEFORM)
def test_deform_conv(load, name):
    arguments, a = load(name)
    operands = {key: f'grad_{key}' for key in ('input', 'offset', 'weight')}
    check(lambda: mmcv.ops.deform_conv2d(*(a[key] for key in operands), *convolution_settings(arguments)), a, operands)


@pytest.mark.parametrize('name', MODULATED)
def test_modulated_deform_conv(load, name):
    arguments, a = load(name)
    operands = {key: f'grad_{key}' for key in ('input', 'offset', 'mask', 'weight', 'bias') if key in a}
    tensors = [a.get(key) for key in ('input', 'offset', 'mask', 'weight', 'bias')]
    check(
        lambda: mmcv.ops.modulated_deform_conv2d(*tensors, *convolution_settings(arguments)),
        a,
        operands,
    )


def test_ms_deform_attn(load):
    _, a = load('ms_deform_attn')
    inputs = ('value', 'spatial_shapes', 'level_start', 'sampling_locations', 'attention_weights')
    gradients = {'value': 'grad_value', 'sampling_locations': 'grad_loc', 'attention_weights': 'grad_attn'}
    check(lambda: MultiScaleDeformableAttnFunction.apply(*(a[key] for key in inputs), 64), a, gradients)


@pytest.mark.parametrize('name', OVERLAPS)
def test_overlaps(load, name):
    arguments, a = load(name)
    ious = getattr(mmcv.ops, name)(a['a'], a['b'], **arguments)
    torch.testing.assert_close(ious, a['output'], rtol=1e-5, atol=1e-5)


# Layers as initialised: offsets are zero, and samples of the border lie at exactly -1.
LAYERS = {
    'dcn2_at_init': lambda: mmcv.ops.ModulatedDeformConv2dPack(8, 6, 3, padding=1),
    'dcn1_at_init_s2_d2': lambda: mmcv.ops.DeformConv2dPack(8, 6, 3, padding=2, dilation=2, stride=2),
    'dyhead': lambda: DyHead(in_channels=16, out_channels=16, num_blocks=1),  # offsets larger than the output
}


@pytest.mark.parametrize('name', LAYERS)
def test_layers_as_initialised(device, name):
    with np.load(golden_file('operators', f'{name}.npz')) as arrays:
        a = {key: torch.from_numpy(arrays[key]).to(device) for key in arrays if key != 'note'}
    count = sum(key.startswith('input') for key in a)
    layer = LAYERS[name]().to(device)
    layer.load_state_dict({key.removeprefix('param/'): a[key] for key in a if key.startswith('param/')})
    inputs = [a[f'input{i}'].requires_grad_() for i in range(count)]
    outputs = layer(inputs) if count > 1 else [layer(*inputs)]
    for i, output in enumerate(outputs):
        torch.testing.assert_close(output, a[f'output{i}'], rtol=1e-5, atol=1e-5)
    sum((output * a[f'cotangent{i}']).sum() for i, output in enumerate(outputs)).backward()
    gradients = {f'grad_input{i}': x.grad for i, x in enumerate(inputs)}
    gradients |= {f'grad/{name}': parameter.grad for name, parameter in layer.named_parameters()}
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, a[name], rtol=1e-4, atol=1e-4)
