"""Costs agree with closed formulas and with the authors' code, and unknown operators are errors."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from hybrid_backbones import create_backbone, create_classifier
from hybrid_backbones.engine.config import read_config
from hybrid_backbones.profiling.cost import UnknownOperatorError, backbone_cost, count_cost, model_cost
from hybrid_backbones.profiling.speed import create_network
from hybrid_backbones.swap.feature_maps import build


class _Function(nn.Module):
    """A module that calls a function."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def _cost(function, *shapes: tuple[int, ...], device: str = 'cpu', dtype: torch.dtype = torch.float32):
    return count_cost(_Function(function), *(torch.ones(shape, device=device, dtype=dtype) for shape in shapes))


def test_convolutions():
    # A MAC per output, input channel of the group and tap; per input, output channel and tap when transposed.
    conv = nn.Conv2d(8, 12, (3, 5), stride=2, padding=1, dilation=2, groups=4)
    cost = count_cost(conv, torch.zeros(2, 8, 20, 31))
    outputs = 2 * 12 * 9 * 13
    assert cost.macs == cost.textbook_macs == outputs * 2 * 15
    assert cost.by_operator == {'aten.convolution': cost.macs}
    assert (cost.parameters, cost.activations) == (12 * 2 * 15 + 12, outputs)
    assert count_cost(nn.ConvTranspose2d(8, 6, 2, stride=2), torch.zeros(2, 8, 5, 7)).macs == 2 * 8 * 35 * 6 * 4


@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_linear_layers_and_products(device):
    layer = nn.Linear(16, 24, device=device)
    cost = count_cost(layer, torch.zeros(2, 10, 16, device=device))
    assert (cost.macs, cost.activations) == (2 * 10 * 16 * 24, 2 * 10 * 24)
    # In place, which torch's own counter ignores.
    assert _cost(lambda x, a, b: x.addmm_(a, b), (3, 5), (3, 7), (7, 5), device=device).macs == 3 * 5 * 7
    assert _cost(torch.baddbmm, (2, 3, 5), (2, 3, 7), (2, 7, 5), device=device).macs == 2 * 3 * 5 * 7
    assert _cost(torch.mv, (6, 7), (7,), device=device).macs == 42
    assert _cost(lambda a, b: torch.einsum('bij,bjk->bik', a, b), (2, 3, 4), (2, 4, 5), device=device).macs == 120


@pytest.mark.parametrize('device', ['cpu', 'meta'])
@pytest.mark.parametrize('wide', [16, 12])
def test_attention_costs_the_same_with_every_kernel(device, wide):
    # Values of another width than keys have no fused kernel.
    shapes = (2, 4, 30, 16), (2, 4, 50, 16), (2, 4, 50, wide)
    cost = _cost(F.scaled_dot_product_attention, *shapes, device=device)
    assert (cost.macs, cost.activations) == (2 * 4 * 30 * 50 * (16 + wide), 2 * 4 * 30 * wide)


def test_multi_head_attention_module():
    layer = nn.MultiheadAttention(32, 4, batch_first=True)
    x = torch.zeros(2, 10, 32)
    cost = count_cost(layer, x, x, x, need_weights=False)
    assert cost.macs == 2 * (4 * 10 * 32 * 32 + 2 * 10 * 10 * 32)


def test_fourier_transforms_and_products_of_spectra():
    # 5 n log2(n) FLOPs for complex numbers, half for real ones.
    cost = _cost(torch.fft.rfft2, (2, 3, 16, 32))
    assert cost.by_operator == {'aten._fft_r2c': 2 * 3 * 512 * 9 * 5 // 4}
    assert cost.activations == 0
    assert _cost(torch.fft.fft, (8, 64), dtype=torch.complex64).macs == 8 * 64 * 6 * 5 // 2
    assert _cost(lambda s: torch.fft.irfft(s, 32), (4, 17), dtype=torch.complex64).macs == 4 * 32 * 5 * 5 // 4
    assert _cost(torch.mul, (8, 64), (64,), dtype=torch.complex64).macs == 4 * 8 * 64
    assert _cost(torch.mul, (8, 64), (64,)).macs == 0


def test_deformable_convolution():
    from torchvision.ops import deform_conv2d

    assert _cost(deform_conv2d, (1, 4, 9, 9), (1, 18, 7, 7), (6, 4, 3, 3)).macs == 6 * 49 * 4 * 9


def test_normalisation_activations_pooling_and_interpolation_are_free():
    layers = nn.Sequential(nn.BatchNorm2d(4), nn.GELU(), nn.ReLU(True), nn.AvgPool2d(2), nn.Upsample(scale_factor=2))
    assert count_cost(layers, torch.zeros(1, 4, 8, 8)).macs == 0


def test_unknown_operator_is_an_error_with_its_name_and_module():
    network = nn.Sequential(nn.Linear(4, 4), _Function(torch.linalg.inv))
    with pytest.raises(
        UnknownOperatorError, match=r'aten\.linalg_inv_ex\.default, run by Sequential\.1, has no known cost.*formula'
    ):
        count_cost(network, torch.eye(4))


def test_custom_operator_counts_by_its_registered_formula():
    @torch.library.custom_op('hybrid_backbones_test::twice', mutates_args=())
    def twice(x: Tensor) -> Tensor:
        return 2 * x

    packet = torch.ops.hybrid_backbones_test.twice
    with pytest.raises(UnknownOperatorError, match=r'hybrid_backbones_test\.twice\.default, run by _Function'):
        _cost(twice, (3, 5))
    register_flop_formula(packet)(lambda shape, *, out_shape=None: 2 * shape[0] * shape[1])
    assert _cost(twice, (3, 5)).by_operator == {'hybrid_backbones_test.twice': 15}


# Measured on the authors' code: parameters in millions and MACs in units of 1e9, at 224x224 or the given side, as
# precise as the reference page states them. It has BoTNet without the classifier.
REFERENCE = {
    'conv2former_n': (14.993, 2.330),
    'conv2former_t': (26.697, 4.361),
    'conv2former_s': (50.033, 8.708),
    'conv2former_b': (90.029, 15.89),
    'conv2former_b_k7': (88.785, 15.57),
    'conv2former_l': (198.894, 36.04),
    'cvt_13': (19.997, 4.566),
    'cvt_21': (31.623, 7.178),
    'cvt_w24': (277.196, 60.92),
    'ceit_t': (6.357, 1.395),
    'ceit_s': (24.205, 4.760),
    'ceit_b': (94.405, 17.75),
    'deit_t': (5.717, 1.254),
    'deit_s': (22.051, 4.599),
    'deit_b': (86.568, 17.56),
    'deit_t distilled': (5.911, 1.261),
    'deit_s distilled': (22.436, 4.624),
    'deit_b distilled': (87.338, 17.66),
    'convit_t': (5.711, 1.252),
    'convit_s': (27.777, 5.747),
    'convit_b': (86.540, 17.51),
    'vitc_1gf': (4.57, 1.08),
    'vitc_4gf': (17.75, 3.96),
    'vitc_18gf': (81.57, 17.71),
    'vitc_36gf': (167.80, 35.00),
    'coatnet_0': (25.037, 4.547),
    'coatnet_1': (42.226, 8.643),
    'coatnet_2': (74.685, 16.43),
    'coatnet_3': (166.966, 36.45),
    'botnet_50': (20.852, 4.023 + 0.002),
    'botnet_s1_50': (20.859, 5.416 + 0.002),
    'hornet_t': (22.410, 3.968),
    'hornet_s': (49.528, 8.814),
    'hornet_b': (87.257, 15.57),
    'hornet_l': (194.543, 34.80),
    'hornet_t_gf': (22.992, 3.889),
    'hornet_s_gf': (50.402, 8.694),
    'hornet_b_gf': (88.421, 15.41),
    'hornet_l_gf': (196.290, 34.56),
    'replknet_31b': (79.864, 15.43),
    'replknet_31l': (172.671, 32.78),
    'replknet_xl': (335.436, 63.08),
    'slak_t': (50.704, 8.705),
    'slak_s': (91.132, 16.60),
    'slak_b': (157.951, 28.51),
    'moat_0': (27.847, 5.638),
    'moat_1': (41.598, 9.001),
    'moat_2': (73.422, 17.05),
    'moat_3': (189.958, 44.55),
    'moat_4': (483.214, 112.4),
    'tiny_moat_0@256': (3.355, 1.041),
    'tiny_moat_1@256': (5.123, 1.576),
    'tiny_moat_2@256': (9.773, 2.975),
    'tiny_moat_3@256': (19.534, 5.897),
}
# Executed here but not counted there: Fourier transforms and products of spectra in HorNet's global filter, and folding
# RepLKNet's BatchNorms into weights.
NOT_COUNTED = {'hornet': ('aten._fft_r2c', 'aten._fft_c2r', 'aten.mul'), 'replknet': ('aten.mv',)}
# Executed minus textbook MACs, relative to the latter: at least and at most. Other families are within 0.1 %.
OTHER_ALGEBRA = {
    'convit': (0.001, 0.005),  # positions apart, N (H + W) C, instead of the 3 N^2 heads of `pos_proj`
    'botnet': (-0.002, -0.0002),  # H + W relative embeddings for a query instead of 2H + 2W - 2
    'coatnet': (0.0, 0.0015),  # rows that two bands share; folded BatchNorms
    'moat': (0.0, 0.0025),  # folded BatchNorms; padding
    'replknet': (-0.06, -0.02),  # kernels merged, cut to the map, or by Fourier transform
    'slak': (-0.045, -0.025),
}


@pytest.mark.parametrize('entry', REFERENCE)
def test_variant_costs_what_its_authors_code_does(entry):
    variant, _, side = entry.partition('@')
    name, _, distilled = variant.partition(' ')
    with torch.device('meta'):
        network = create_classifier(name, **(dict(distilled=True) if distilled else {}))
        cost = count_cost(network, torch.empty(1, 3, *[int(side or 224)] * 2))
    parameters, macs = REFERENCE[entry]
    assert cost.parameters / 1e6 == pytest.approx(parameters, abs=0.006 if 'vitc' in name else 0.0006)
    family = name.removeprefix('tiny_').split('_')[0]
    own = sum(cost.by_operator.get(row, 0) for row in NOT_COUNTED.get(family, ()))
    # The page has three or four digits.
    assert (cost.textbook_macs - own) / 1e9 == pytest.approx(macs, rel=0.002 if 'vitc' not in name else 0.005)
    low, high = OTHER_ALGEBRA.get(family, (-0.001, 0.001))
    assert low <= cost.macs / cost.textbook_macs - 1 <= high


# Sizes at which algorithms differ by device, size or mode: bands (CoAtNet, MOAT), Fourier transforms (RepLKNet),
# attention in parts (BoTNet), odd sides.
ON_CPU = {
    'conv2former_n': (97, 65),
    'conv2former_is': (64, 96),
    'cvt_13': (97, 65),
    'coatnet_0': (352, 320),
    'botnet_50': (97, 160),
    'deit_t:window_size=4': (97, 160),
    'vitc_1gf': (97, 65),
    'convit_t:window_size=4': (97, 160),
    'ceit_t': (97, 65),
    'hornet_t_gf': (97, 65),
    'replknet_31b': (192, 192),
    'slak_t': (97, 65),
    'tiny_moat_3': (224, 256),
    'timm_resnet_50': (97, 65),
    'timm_swin_t': (97, 65),
    'timm_maxvit_t': (97, 65),
}


@pytest.mark.parametrize('name', ON_CPU)
def test_cost_on_meta_is_that_on_a_cpu(name):
    size = ON_CPU[name]
    network = create_network(name)
    assert count_cost(network, torch.zeros(1, 3, *size)) == backbone_cost(name, size)


def test_large_kernels_by_fourier_transform_are_counted_as_such():
    cost = backbone_cost('replknet_31b', (224, 224))
    assert cost.by_operator.keys() >= {'aten._fft_c2c', 'aten.convolution'}
    assert cost.macs < cost.textbook_macs


def test_textbook_macs_of_convit_with_and_without_windows():
    tokens, dim, heads = 100, 192, 4
    rest = tokens * (256 * 3 * dim + dim * dim + 8 * dim * dim)  # patches, proj and MLP of a block
    whole = count_cost(create_backbone('convit_t', pyramid=None, out_norm=False, blocks=(0,)), _image(160))
    assert whole.textbook_macs == rest + tokens * 3 * dim**2 + tokens**2 * (2 * dim + 3 * heads)
    assert whole.macs == rest + tokens * 3 * dim**2 + tokens**2 * 2 * dim + tokens * 20 * dim
    options = dict(pyramid=None, out_norm=False, blocks=(0,), window_size=4)
    windows = count_cost(create_backbone('convit_t', **options), _image(160))
    # Four windows of 16 tokens, two of 8 on each of two sides, one of 4.
    pairs = 4 * 16**2 + 4 * 8**2 + 4**2
    assert windows.textbook_macs == rest + tokens * 3 * dim**2 + pairs * (2 * dim + 3 * heads)


def test_textbook_macs_are_those_of_plain_layers():
    for size in ((160, 224), (512, 512)):
        assert backbone_cost('ceit_t', size).textbook_macs == backbone_cost('plain:ceit_t', size).macs


def _image(side: int) -> Tensor:
    return torch.zeros(1, 3, side, side)


def test_counting_leaves_the_network_unchanged():
    network = create_backbone('convit_t', frozen_stages=1, norm_eval=True)
    before = [p.requires_grad for p in network.parameters()], [m.training for m in network.modules()]
    cost = count_cost(network, _image(64))
    assert before == ([p.requires_grad for p in network.parameters()], [m.training for m in network.modules()])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert count_cost(network, _image(64)) == cost
    network(_image(64))[-1].sum().backward()


def test_options_and_names():
    deep = backbone_cost('deit_t', (224, 224), pyramid=None, blocks=(2,), out_norm=False)
    assert deep.parameters < backbone_cost('deit_t', (224, 224)).parameters / 2
    assert backbone_cost('timm:resnet50', (224, 224)).macs == pytest.approx(4.087e9, rel=1e-3)
    with pytest.raises(ValueError, match='timm:resnet50 takes no options here'):
        backbone_cost('timm:resnet50', (224, 224), out_norm=False)
    with pytest.raises(ValueError, match="'resnet51' is neither one of"):
        backbone_cost('resnet51', (224, 224))


@pytest.mark.parametrize(
    ('config', 'size', 'parameters', 'macs'),
    [
        # ConvNeXt's and HorNet's readmes; mmdet 2 counted norms and activations too, a few tenths of 1 %.
        ('maskrcnn_timm_convnext_t_coco', (800, 1280), 48, 262),
        ('cascade_maskrcnn_hornet_t_coco', (800, 1280), 80, 730),
        ('upernet_hornet_t_ade20k', (512, 2048), 52, 926),
    ],
)
def test_whole_models_cost_what_their_authors_publish(config, size, parameters, macs):
    cost = model_cost(read_config(f'configs/{config}.py'), size)
    assert cost.parameters / 1e6 == pytest.approx(parameters, abs=0.6)
    assert cost.textbook_macs / 1e9 == pytest.approx(macs, rel=0.002)


def test_model_cost_on_meta_is_that_on_a_cpu():
    cfg = read_config('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py')
    model = build(cfg.model, 'mmdet')
    assert count_cost(model, _image(64), mode='tensor') == model_cost(cfg, (64, 64))


def test_models_that_cannot_be_counted_are_errors():
    with pytest.raises(ValueError, match='has no model'):
        model_cost(Config(dict(optimizer=None)), (64, 64))
    with pytest.raises(ValueError, match=r'roi_head PointRendRoIHead: expected StandardRoIHead or CascadeRoIHead'):
        model_cost(read_config('mmdet::point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py'), (64, 64))
