"""timm's CoAtNet, BoTNet, HaloNet and LambdaNet at any size, against timm and against definitions written out."""

import copy
import math
from functools import partial

import pytest
import timm
import torch
import torch.nn.functional as F
from backbones.test_timm import lively
from families import small_lamhalobotnet
from timm.layers.bottleneck_attn import BottleneckAttn
from timm.layers.halo_attn import HaloAttn
from timm.models.maxxvit import Attention2d
from torch import Tensor, nn

from hybrid_backbones import create_backbone, list_backbones
from hybrid_backbones.backbones import TimmPyramid
from hybrid_backbones.backbones._timm_hybrids import attend_at_any_size
from hybrid_backbones.backbones.factory import find_backbone

# Bias by table and by MLP, strides in the pooling and in the depthwise convolution.
KINDS = {
    'coatnet': dict(model_name='test_coatnet'),
    'coatnet_rmlp': dict(model_name='test_coatnet', transformer_rel_pos_type='mlp', conv_stride_mode='dw'),
    'coatnext': dict(model_name='test_coatnet', conv_block_type='convnext', conv_norm_layer='layernorm2d'),
    'lamhalobotnet': small_lamhalobotnet(),
}
of_every_kind = pytest.mark.parametrize('kind', KINDS)
FAST = ('coatnet_nano_rw', 'coatnet_rmlp_nano_rw', 'botnet26t')
NAMES = [
    name.removeprefix('timm_')
    for name in list_backbones('timm_*')
    if any(part in name for part in ('coatne', 'botne', 'halonet', 'lambda'))
]


def build(kind: str, **options) -> TimmPyramid:
    # Double precision: sharp attention magnifies rounding.
    return lively(TimmPyramid(KINDS[kind], **dict(out_norm=False) | options)).double()


def timm_s(network: TimmPyramid) -> nn.Module:
    """timm's network with the same weights."""
    theirs = timm.create_model(network.name, num_classes=0, **network.options).double()
    assert not theirs.load_state_dict(network.trunk.state_dict(), strict=False).unexpected_keys
    return theirs.eval()


def assert_maps_equal(network: TimmPyramid, theirs: nn.Module, size: tuple[int, int]) -> None:
    image = torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs.forward_intermediates(image, indices=network.features, intermediates_only=True)
        for a, b in zip(network.eval()(image), expected, strict=True):
            assert (a - b).norm() < 1e-8 * b.norm()


@pytest.mark.parametrize('name', [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_maps_are_timm_s_at_its_size(name):
    network = lively(create_backbone(f'timm_{name}', out_norm=False)).double()
    theirs = timm_s(network)
    assert_maps_equal(network, theirs, theirs.default_cfg['input_size'][1:])
    # In single precision where nothing magnifies rounding.
    if name.startswith('coat'):
        image = torch.randn(1, 3, *theirs.default_cfg['input_size'][1:])
        with torch.inference_mode():
            options = dict(indices=network.features, intermediates_only=True)
            for a, b in zip(
                network.float()(image), theirs.float().forward_intermediates(image, **options), strict=True
            ):
                assert (a - b).norm() < 1e-5 * b.norm()


def test_names_are_of_networks_with_published_weights():
    assert len(NAMES) == 19
    published = {name.partition('.')[0] for name in timm.list_pretrained()}
    assert {find_backbone(f'timm_{name}')[1]['arch'] for name in NAMES} <= published


@pytest.mark.parametrize('size', [(64, 96), (160, 320), (256, 160)])
@pytest.mark.parametrize('kind', ['coatnet', 'coatnet_rmlp', 'coatnext'])
def test_coatnet_is_timm_s_network_built_for_the_size(kind, size):
    network = build(kind)
    theirs = timm_s(network)
    theirs.set_input_size(size)
    assert_maps_equal(network, theirs, size)


# Sizes that timm's networks take at no setting: their own layers, with what is undefined there written out.


class CoveringPool(nn.Module):
    """Mean of what there is of each 2x2 square."""

    def forward(self, x: Tensor) -> Tensor:
        pad = (0, x.shape[3] % 2, 0, x.shape[2] % 2)
        sums, counts = (4 * F.avg_pool2d(F.pad(t, pad), 2) for t in (x, torch.ones_like(x)))
        return sums / counts


def as_defined(theirs: nn.Module) -> nn.Module:
    for name, module in list(theirs.named_modules()):
        if isinstance(module, nn.AvgPool2d) and module.kernel_size in (2, (2, 2)):
            theirs.set_submodule(name, CoveringPool())
        elif isinstance(module, Attention2d):
            module.register_forward_pre_hook(lambda attn, inputs: attn.rel_pos.set_window_size(inputs[0].shape[2:]))
        elif isinstance(module, BottleneckAttn):
            module.register_forward_pre_hook(lambda attn, inputs: resize_embeddings(attn, inputs[0].shape[2:]))
        elif isinstance(module, HaloAttn):
            module.forward = partial(attend_with_halo, module)
    return theirs


def resize_embeddings(attn: BottleneckAttn, size: tuple[int, int]) -> None:
    positions = attn.pos_embed
    positions.height, positions.width = size
    for key, side in zip(('height_rel', 'width_rel'), size, strict=True):
        line = getattr(positions, key).detach()
        resized = F.interpolate(line.t()[None], 2 * side - 1, mode='linear', align_corners=False)[0].t()
        setattr(positions, key, nn.Parameter(resized))


def attend_with_halo(attn: HaloAttn, x: Tensor) -> Tensor:
    """Query by query; keys and values beside the map are zeros."""
    block, window, halo, own = attn.block_size, attn.win_size, attn.halo_size, attn.block_size_ds
    q, kv = attn.q(x).unflatten(1, (attn.num_heads, -1)), attn.kv(x).unflatten(1, (attn.num_heads, -1))
    kv = F.pad(kv.flatten(1, 2), (halo, halo + block, halo, halo + block)).unflatten(1, kv.shape[1:3])
    rows, columns = attn.pos_embed.height_rel, attn.pos_embed.width_rel
    out = x.new_zeros(*q.shape[:2], attn.dim_head_v, *q.shape[3:])
    places = torch.arange(window)
    for i in range(q.shape[3]):
        for j in range(q.shape[4]):
            top, left = i // own * block, j // own * block
            seen = kv[..., top : top + window, left : left + window]
            k, v = seen.split([attn.dim_head_qk, attn.dim_head_v], 2)
            query = q[..., i, j]
            position = (rows[places - i % own + window - 1] @ query[..., None])[..., 0][..., :, None]
            position = position + (columns[places - j % own + window - 1] @ query[..., None])[..., 0][..., None, :]
            scores = torch.einsum('nhd,nhdyx->nhyx', query, k) * attn.scale + position
            weights = scores.flatten(2).softmax(-1).unflatten(2, (window, window))
            out[..., i, j] = torch.einsum('nhyx,nhdyx->nhd', weights, v)
    return attn.pool(out.flatten(1, 2))


@pytest.mark.parametrize('size', [(97, 131), (45, 203)])
@of_every_kind
def test_maps_are_as_defined_at_sizes_that_are_no_multiples(kind, size):
    network = build(kind)
    assert_maps_equal(network, as_defined(timm_s(network)), size)


@pytest.mark.parametrize('size', [(6, 6), (7, 11), (2, 5)])
@pytest.mark.parametrize(('block', 'stride'), [(3, 1), (3, 2), (4, 2)])
def test_halo_attention_is_as_defined(block, stride, size):
    theirs = HaloAttn(16, 16, stride=stride, num_heads=2, block_size=block, halo_size=1).double()
    ours = nn.Sequential(copy.deepcopy(theirs))
    attend_at_any_size(ours)
    theirs.pool = CoveringPool() if isinstance(theirs.pool, nn.AvgPool2d) else theirs.pool
    x = torch.randn(2, 16, *size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), attend_with_halo(theirs, x))
        assert ours(x).shape[2:] == tuple(math.ceil(side / stride) for side in size)


@pytest.mark.parametrize('scaled', [True, False])
@pytest.mark.parametrize('dim_head', [4, 32])
def test_bottleneck_attention_is_timm_s_for_keys_shorter_and_longer_than_values(dim_head, scaled):
    options = dict(feat_size=(5, 7), num_heads=2, dim_head=dim_head, scale_pos_embed=scaled)
    theirs = BottleneckAttn(16, 32, **options).double()
    ours = nn.Sequential(copy.deepcopy(theirs))
    attend_at_any_size(ours)
    x = torch.randn(2, 16, 5, 7, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(x)
        torch.testing.assert_close(ours(x), expected)
    torch.testing.assert_close(ours(x), expected)  # another path where gradients are wanted


@pytest.mark.parametrize(
    ('kind', 'level', 'side'),
    [('coatnet', 2, 96), ('coatnet_rmlp', 2, 96), *(('lamhalobotnet', i, 48) for i in (1, 2, 3))],
)
def test_no_matrix_of_all_pairs_is_kept_for_the_backward_pass(kind, level, side):
    network = build(kind).float().train()
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        network.trunk.stages[level](torch.randn(1, network.out_channels[level - 1], side, side))
    assert max(sizes) < (48 * 48) ** 2 / 2


def test_weights_of_a_network_for_another_size_are_resized():
    larger = dict(KINDS['coatnet'], img_size=320)
    table = 'stages.2.blocks.0.attn.rel_pos.relative_position_bias_table'
    theirs = timm.create_model('test_coatnet')
    ours = TimmPyramid(larger)
    assert ours.convert_checkpoint(theirs.state_dict())[table].shape == ours.trunk.state_dict()[table].shape
