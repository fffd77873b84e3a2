"""TimmPyramid against timm itself, on one small network of every kind."""

import copy

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import group_parameters
from torch import nn

from hybrid_backbones import create_backbone, create_classifier
from hybrid_backbones.backbones import TimmPyramid
from hybrid_backbones.backbones.timm import STRIDES
from hybrid_backbones.checkpoints import CheckpointError, load_pretrained

SWIN = dict(embed_dim=16, depths=(2, 2, 2, 2), num_heads=(1, 1, 2, 2), img_size=64, window_size=2)
# How timm calls it, what its constructor takes besides, and a size that timm takes without padding.
KINDS = {
    'convnext': ('test_convnext', {}, (97, 131)),
    'efficientnet': ('test_efficientnet', {}, (97, 131)),
    'resnet': ('test_resnet', {}, (97, 131)),
    'swin': ('swin_tiny_patch4_window7_224', SWIN, (64, 96)),
    'maxvit': ('test_maxvit', {}, (160, 320)),
    'coatnet': ('test_coatnet', {}, (160, 160)),
}
HEADS = {
    'convnext': {'head'},
    'efficientnet': {'conv_head', 'bn2', 'classifier'},
    'resnet': {'fc'},
    'swin': {'norm', 'head'},
    'maxvit': {'norm', 'head'},
    'coatnet': {'norm', 'head'},
}

of_every_kind = pytest.mark.parametrize('kind', KINDS)


def build(kind: str, **options) -> TimmPyramid:
    name, arguments, _ = KINDS[kind]
    return lively(TimmPyramid(dict(model_name=name, **arguments), **dict(out_norm=False) | options))


def timm_s(kind: str, **options) -> nn.Module:
    name, arguments, _ = KINDS[kind]
    return lively(timm.create_model(name, **arguments | options))


def lively(network: nn.Module) -> nn.Module:
    """Scales, shifts, tables and statistics under which every layer matters."""
    for name, tensor in network.state_dict().items():
        if tensor.ndim == 1 and name.endswith(('gamma', 'weight', 'running_var')):
            nn.init.uniform_(tensor, 0.5, 1.5)
        elif name.endswith(('bias', 'running_mean', 'bias_table')):
            nn.init.normal_(tensor, std=0.3)
    return network


def features_of_timm(network: TimmPyramid, **options) -> nn.Module:
    """timm's own extractor, rebuilt by `features_only`, with the same weights; it renames keys in their order."""
    extractor = timm.create_model(network.name, features_only=True, **network.options | options).eval()
    own = network.trunk.state_dict().values()
    extractor.load_state_dict(dict(zip(extractor.state_dict(), own, strict=True)))
    return extractor


def levels(extractor: nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    maps = zip(extractor.feature_info.reduction(), extractor(image), strict=True)
    axes = (0, 3, 1, 2) if getattr(extractor, 'output_fmt', 'NCHW') == 'NHWC' else (0, 1, 2, 3)
    return [m.permute(axes) for stride, m in maps if stride in STRIDES]


@of_every_kind
def test_maps_are_timm_s_features(kind):
    network = build(kind, pad_before_shift=False).eval()
    size = KINDS[kind][2]
    options = dict(img_size=size) if kind == 'swin' else dict(out_indices=tuple(range(len(network.trunk.feature_info))))
    image = torch.randn(2, 3, *size)
    with torch.inference_mode():
        expected = levels(features_of_timm(network, **options), image)
        maps = network(image)
    assert network.out_channels == tuple(m.shape[1] for m in expected)
    for a, b in zip(maps, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('size', [(64, 64), (64, 192), (160, 64), (96, 128)])
def test_swin_s_windows_are_on_request_those_of_timm_s_network_built_for_the_size(size):
    network = build('swin', pad_before_shift=False).eval()
    image = torch.randn(1, 3, *size)
    with torch.inference_mode():
        network(torch.randn(1, 3, 192, 192))
        expected = levels(features_of_timm(network, img_size=size, strict_img_size=True), image)
        for a, b in zip(network(image), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def swin_of_mmdet() -> nn.Module:
    from mmdet.models.backbones import SwinTransformer

    options = dict(embed_dims=16, depths=(2, 2, 2, 2), num_heads=(1, 1, 2, 2), window_size=7, drop_path_rate=0.0)
    network = lively(SwinTransformer(**options))
    network.train(False)  # returns nothing
    return network


# Maps of one window (224), of whole windows, of neither, of odd sides, smaller than a window.
@pytest.mark.parametrize('size', [(224, 224), (448, 224), (200, 333), (97, 131), (9, 30)])
def test_swin_is_the_network_of_the_published_detectors(size, tmp_path):
    theirs = swin_of_mmdet()
    torch.save(dict(state_dict={f'backbone.{k}': v for k, v in theirs.state_dict().items()}), tmp_path / 'mmdet.pth')
    arch = dict(model_name='swin_tiny_patch4_window7_224', **SWIN | dict(img_size=224, window_size=7))
    ours = TimmPyramid(arch, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'mmdet.pth'))).eval()
    ours.init_weights()
    assert ours.load_report.matched == ours.load_report.total == sum(p.numel() for p in theirs.parameters())
    assert not ours.load_report.ignored
    image = torch.randn(2, 3, *size)
    with torch.inference_mode():
        for a, b in zip(ours(image), theirs(image), strict=True):
            assert (a - b).norm() < 1e-5 * b.norm()


@pytest.mark.parametrize(('name', 'window'), [('swinv2_tiny_window8_256', 8), ('swinv2_cr_tiny_224', 7)])
def test_the_order_of_padding_and_shift_matters_to_swin_v2_where_windows_are_padded(name, window):
    arch = dict(model_name=name, embed_dim=16, depths=(2, 1, 1, 1), num_heads=(1, 1, 1, 1))
    padded_first, shifted_first = (lively(TimmPyramid(arch, (0,), pad_before_shift=p)).eval() for p in (True, False))
    shifted_first.load_state_dict(padded_first.state_dict())
    with torch.inference_mode():
        for side, equal in ((8 * window, True), (12 * window - 4, False)):
            image = torch.randn(1, 3, side, side)
            assert torch.allclose(padded_first(image)[0], shifted_first(image)[0], atol=1e-5) == equal


@pytest.mark.parametrize('pad_before_shift', [True, False])
def test_swin_recomputes_each_forward_pass_for_its_own_size(pad_before_shift):
    plain, recomputed = (build('swin', pad_before_shift=pad_before_shift, with_cp=cp).train() for cp in (False, True))
    recomputed.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 64, 64), torch.randn(1, 3, 33, 97)
    for network in (plain, recomputed):
        sum(m.square().mean() for maps in [network(image) for image in images] for m in maps).backward()
    for a, b in zip(recomputed.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(('kind', 'padded'), [('swin', (76, 100)), ('maxvit', (160, 160))])
def test_other_sizes_are_padded_and_maps_cropped(kind, padded):
    network = build(kind).eval()
    image = torch.randn(1, 3, 75, 97)
    with torch.inference_mode():
        maps = network(image)
        whole = network(nn.functional.pad(image, (0, padded[1] - 97, 0, padded[0] - 75)))
    assert [tuple(m.shape[2:]) for m in maps] == [(19, 25), (10, 13), (5, 7), (3, 4)]
    for m, w in zip(maps, whole, strict=True):
        assert torch.equal(m, w[:, :, : m.shape[2], : m.shape[3]])


@of_every_kind
def test_one_size_leaves_no_trace_on_the_next(kind):
    network = build(kind).eval()
    before = copy.deepcopy(network.state_dict())
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        first = network(image)
        for size in ((96, 64), (21, 13), (128, 33)):  # smaller than a window, too
            for m, stride in zip(network(torch.randn(1, 3, *size)), STRIDES, strict=True):
                shape = [max(1, side) for side in (size[0] // stride, size[1] // stride)]
                assert all(low <= side <= low + 1 for low, side in zip(shape, m.shape[2:], strict=True))
        second = network(image)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
@of_every_kind
def test_a_file_of_timm_loads_fully(kind, suffix, tmp_path):
    theirs, ours, path = timm_s(kind), build(kind), tmp_path / f'model.{suffix}'
    (save_file if suffix == 'safetensors' else torch.save)(theirs.state_dict(), path)
    report = load_pretrained(ours, path)
    assert report.matched == report.total == sum(p.numel() for p in ours.parameters())
    assert {key.split('.')[0] for key in report.ignored} == HEADS[kind]
    own, state = ours.trunk.state_dict(), theirs.state_dict()
    assert own.keys() | set(report.ignored) == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in own.items())


@of_every_kind
def test_levels_that_are_not_built_are_ignored_and_nothing_else(kind, tmp_path):
    theirs, ours = timm_s(kind), build(kind, out_indices=(0, 1))
    torch.save(theirs.state_dict(), tmp_path / 'model.pth')
    report = load_pretrained(ours, tmp_path / 'model.pth')
    assert report.matched == report.total
    assert ours.trunk.state_dict().keys() | set(report.ignored) == theirs.state_dict().keys()
    torch.save({**theirs.state_dict(), 'neck.weight': torch.zeros(1)}, tmp_path / 'other.pth')
    with pytest.raises(CheckpointError, match=r'1 only in the file: neck\.weight'):
        load_pretrained(ours, tmp_path / 'other.pth')


def test_a_file_of_another_network_is_an_error(tmp_path):
    torch.save(timm_s('resnet').state_dict(), tmp_path / 'model.pth')
    with pytest.raises(CheckpointError, match='not a checkpoint of this TimmPyramid'):
        load_pretrained(build('convnext'), tmp_path / 'model.pth')


def test_swin_s_authors_file_is_converted_by_timm(tmp_path):
    theirs, published = timm_s('swin'), {}
    for key, value in theirs.state_dict().items():
        # The authors halve a map at the end of a stage, and save buffers.
        parts = key.split('.')
        if 'downsample' in parts:
            parts[1] = str(int(parts[1]) - 1)
        published['.'.join(parts).replace('head.fc.', 'head.')] = value
    published['layers.0.blocks.1.attn_mask'] = torch.zeros(4, 4, 4)
    torch.save(dict(model=published), tmp_path / 'swin.pth')
    ours = build('swin')
    report = load_pretrained(ours, tmp_path / 'swin.pth')
    assert report.matched == report.total
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.trunk.state_dict().items())


@of_every_kind
def test_logits_are_timm_s(kind, tmp_path):
    name, arguments, _ = KINDS[kind]
    theirs = timm_s(kind, num_classes=7).eval()
    torch.save(theirs.state_dict(), tmp_path / 'model.pth')
    ours = create_classifier(
        'timm_convnext_t', 7, tmp_path / 'model.pth', arch=dict(model_name=name, **arguments)
    ).eval()
    image = torch.randn(2, 3, *((64, 64) if kind == 'swin' else (160, 160)))
    with torch.inference_mode():
        torch.testing.assert_close(ours(image), theirs(image), rtol=1e-4, atol=1e-5)


@of_every_kind
def test_layers_are_timm_s_groups_in_order(kind):
    network = build(kind, out_norm=True)
    theirs = timm_s(kind)
    groups = group_parameters(theirs, theirs.group_matcher(coarse=False), reverse=True)
    positions = {name: network.layer_position(f'trunk.{name}') for name, _ in network.trunk.named_parameters()}
    assert {depth for _, depth in positions.values()} == set(range(network.num_blocks + 1))
    for name, (stage, depth) in positions.items():
        assert depth == groups[name]
        assert (stage, depth) == (-1, 0) or sum(network.depths[:stage]) < depth <= sum(network.depths[: stage + 1])
    assert network.layer_position('out_norms.0.weight') == (4, network.num_blocks + 1)
    # Every level ends where the module that timm takes its map from ends.
    ends = {info['reduction']: info['module'] for info in theirs.feature_info}
    for level, stride in enumerate(STRIDES):
        inside = [depth for name, (_, depth) in positions.items() if name.startswith(f'{ends[stride]}.')]
        assert max(inside) == sum(network.depths[: level + 1])


@of_every_kind
def test_frozen_levels_hold_all_their_parameters_and_no_other(kind):
    network = build(kind, frozen_stages=2).train()
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad == (network.layer_position(name)[0] >= 2), name
    for level in range(-1, 4):
        modules = network.stage_modules(level)
        inside = {id(parameter) for module in modules for parameter in module.parameters()}
        assert inside == {id(p) for name, p in network.named_parameters() if network.layer_position(name)[0] == level}
        assert all(m.training == (level >= 2) for module in modules for m in module.modules())


@of_every_kind
def test_checkpointing_changes_neither_maps_nor_gradients_nor_statistics(kind):
    plain, recomputed = build(kind, drop_path_rate=0.2), build(kind, drop_path_rate=0.2, with_cp=True)
    recomputed.load_state_dict(plain.state_dict())
    image, kept, results = torch.randn(2, 3, 64, 64), [], []
    for network in (plain, recomputed):
        torch.manual_seed(1)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t):
            maps = network.train()(image)
        sum((m * torch.linspace(-1, 1, m.shape[1])[:, None, None]).mean() for m in maps).backward()
        kept.append(sum(sizes))
        results.append((maps, {name: p.grad for name, p in network.named_parameters()}))
    assert all(grad is not None for grad in results[0][1].values())  # nothing is built that no map needs
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-6)
    assert kept[1] < kept[0]
    statistics = dict(plain.named_buffers())
    assert all(torch.equal(buffer, statistics[key]) for key, buffer in recomputed.named_buffers())


def test_swin_compiles():
    network = build('swin', out_indices=(0, 1)).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        expected = network(image)
        torch.testing.assert_close(torch.compile(network, backend='aot_eager', fullgraph=True)(image), expected)


def test_batch_norm_compiles_under_checkpointing():
    plain, compiled = (TimmPyramid('test_resnet', (0,), with_cp=with_cp) for with_cp in (False, True))
    compiled.load_state_dict(plain.state_dict())
    image, maps = torch.randn(2, 3, 64, 64), []
    for run in (plain, torch.compile(compiled, backend='aot_eager', fullgraph=True)):
        maps.append(run(image))
        sum((m * torch.linspace(-1, 1, m.shape[1])[:, None, None]).mean() for m in maps[-1]).backward()
    torch.testing.assert_close(maps[1], maps[0])
    gradients = ({name: p.grad for name, p in network.named_parameters()} for network in (compiled, plain))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
    # Counted once.
    torch.testing.assert_close(dict(compiled.named_buffers()), dict(plain.named_buffers()))


def test_branches_of_re_parametrised_networks_merge():
    network = lively(TimmPyramid('repghostnet_050', out_norm=False)).eval()
    fused = copy.deepcopy(network).fuse()
    image = torch.randn(1, 3, 65, 97)
    with torch.inference_mode():
        for a, b in zip(fused(image), network(image), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    assert len(fused.state_dict()) < len(network.state_dict())


def test_stochastic_depth_is_off_unless_asked_for():
    """timm's Swin has 0.1 on its own."""
    rates = [m.drop_prob for m in build('swin').modules() if hasattr(m, 'drop_prob')]
    assert not any(rates)
    rates = [m.drop_prob for m in build('swin', drop_path_rate=0.3).modules() if hasattr(m, 'drop_prob')]
    assert max(rates) == pytest.approx(0.3)


def test_tables_of_swin_get_no_weight_decay():
    assert build('swin').no_weight_decay == ('relative_position_bias_table',)


def test_a_plain_network_has_the_level_of_its_stride():
    with pytest.raises(ValueError, match=r'maps of strides 16, and none of 4, 8, 32.*TimmPlainPyramid'):
        TimmPyramid('test_vit')
    network = TimmPyramid('test_vit', out_indices=(2,), frozen_stages=0).eval()
    assert (network.out_channels, network.out_strides, network.depths) == ((64,), (16,), (0, 0, 6))
    assert not network.trunk.pos_embed.requires_grad
    with torch.inference_mode():
        assert network(torch.randn(1, 3, 97, 131))[0].shape == (1, 64, 7, 9)


def test_a_network_of_one_size_pads_to_it_and_takes_no_larger_image():
    arch = dict(model_name='lambda_resnet26rpt_256', width_factor=0.25)
    network = TimmPyramid(arch | dict(img_size=160), out_norm=False).eval()
    with torch.inference_mode():
        assert [tuple(m.shape[2:]) for m in network(torch.randn(1, 3, 97, 131))] == [(25, 33), (13, 17), (7, 9), (4, 5)]
    with pytest.raises(ValueError, match=r'up to 160x160 pixels, got 97x161.*img_size=\(H, W\)'):
        network(torch.randn(1, 3, 97, 161))
    larger = TimmPyramid(arch | dict(img_size=(96, 192))).eval()
    with torch.inference_mode():
        assert larger(torch.randn(1, 3, 96, 192))[3].shape[2:] == (3, 6)


def test_a_network_whose_levels_are_added_up_gets_multiples():
    with torch.device('meta'):
        network = TimmPyramid('dla46x_c')
    maps = network(torch.empty(1, 3, 161, 203, device='meta'))
    assert [tuple(m.shape[2:]) for m in maps] == [(41, 51), (21, 26), (11, 13), (6, 7)]


def test_what_timm_cannot_do_is_an_error_that_says_so():
    with torch.device('meta'):
        network = TimmPyramid('tresnet_m')
        with pytest.raises(ValueError, match=r'tresnet_m of timm does not take 161x203 pixels.*multiples of 32'):
            network(torch.empty(1, 3, 161, 203))
        with pytest.raises(ValueError, match=r'drop_path_rate=0\.1: vgg11 of timm has no stochastic depth'):
            TimmPyramid('vgg11', drop_path_rate=0.1)
        with pytest.raises(ValueError, match='with_cp=True: vgg11 of timm cannot recompute'):
            TimmPyramid('vgg11', with_cp=True)
        with pytest.raises(ValueError, match=r'classifier of test_vit reads more than its last map'):
            create_classifier('timm_convnext_t', arch='test_vit', out_indices=(2,))
        with pytest.raises(ValueError, match=r'classifier of test_resnet reads more than its last map'):
            create_classifier('timm_convnext_t', arch='test_resnet', out_indices=(0, 1))


def test_names_are_timm_s():
    with pytest.raises(ValueError, match=r"unknown arch 'convnext_tinny'; choose one of timm\..*convnext_tiny"):
        TimmPyramid('convnext_tinny')
    with pytest.raises(ValueError, match=r"arch has the keys \['model_name', 'pretrained'\]; expected model_name"):
        TimmPyramid(dict(model_name='test_resnet', pretrained=True))
    with torch.device('meta'):
        assert create_backbone('timm_resnet_50').name == 'resnet50'
        assert TimmPyramid('resnet50.a1_in1k').out_channels == (256, 512, 1024, 2048)
