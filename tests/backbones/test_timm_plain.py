"""TimmPlainPyramid against timm itself and against definitions, on a small network of every kind."""

import math

import pytest
import timm
import torch
from mmengine.logging import MMLogger
from safetensors.torch import save_file
from torch import nn

from hybrid_backbones import create_backbone, create_classifier, list_backbones
from hybrid_backbones.backbones import TimmPlainPyramid
from hybrid_backbones.backbones.factory import find_backbone
from hybrid_backbones.backbones.timm_plain import resample
from hybrid_backbones.checkpoints import load_pretrained

SMALL = dict(embed_dim=32, depth=5, num_heads=2)
# How timm calls it, and what its constructor takes besides.
KINDS = {
    'deit3': ('deit3_small_patch16_224', SMALL | dict(img_size=112)),
    'dinov2': ('vit_small_patch14_dinov2', SMALL | dict(img_size=98)),
    'dinov2_reg': ('vit_small_patch14_reg4_dinov2', SMALL | dict(img_size=98)),
    'dinov3': ('vit_small_patch16_dinov3', SMALL),
    'dinov3_plus': ('vit_small_plus_patch16_dinov3', SMALL),
    'eva02': ('eva02_tiny_patch14_336', SMALL | dict(img_size=98)),
    'eva02_b': ('eva02_base_patch14_448', SMALL | dict(img_size=98)),
    'beit': ('beit_base_patch16_224', SMALL | dict(img_size=112)),
    'siglip2': ('vit_base_patch16_siglip_224', SMALL | dict(img_size=112)),
    'sam': ('samvit_base_patch16', SMALL | dict(img_size=112, window_size=4, global_attn_indexes=(1, 4))),
    'cradio': ('vit_base_patch16_radio_v3', SMALL | dict(img_size=112)),
    'pe': ('vit_pe_core_base_patch16_224', SMALL | dict(img_size=112)),
    'rope_mixed': ('vit_base_patch16_rope_mixed_224', SMALL | dict(img_size=112)),
    'distilled': ('deit_tiny_distilled_patch16_224', SMALL | dict(img_size=112)),
    'patch_8': ('vit_small_patch8_224', SMALL | dict(img_size=56)),
}
of_every_kind = pytest.mark.parametrize('kind', KINDS)
RAW = dict(pyramid=None, blocks=(1, 4), out_norm=False)


def lively(network: nn.Module) -> nn.Module:
    """Weights under which every layer, position and token matters."""
    for name, parameter in network.named_parameters():
        if any(word in name for word in ('rel_pos', 'table', 'pos_embed', 'token')):
            nn.init.normal_(parameter, std=0.5)
        elif parameter.ndim > 1:
            nn.init.normal_(parameter, std=1 / math.sqrt(parameter[0].numel()))
        else:
            nn.init.uniform_(parameter, *((-0.3, 0.3) if name.endswith('bias') else (0.5, 1.5)))
    return network


def build(kind: str, **options) -> TimmPlainPyramid:
    name, arguments = KINDS[kind]
    return lively(TimmPlainPyramid(dict(model_name=name, **arguments), **options))


def timm_s(network: TimmPlainPyramid, kind: str, size: tuple[int, int]) -> nn.Module:
    """timm's network for images of `size`, with the same weights."""
    name, arguments = KINDS[kind]
    theirs = timm.create_model(name, num_classes=0, **(arguments if kind == 'beit' else network.options))
    assert not theirs.load_state_dict(network.trunk.state_dict(), strict=False).unexpected_keys
    if kind == 'beit':
        theirs.set_input_size(size)
    return theirs.eval()


@pytest.mark.parametrize('grid', [(7, 7), (10, 14), (3, 20)])
@of_every_kind
def test_maps_are_timm_s(kind, grid):
    network = build(kind, **RAW).eval()
    assert network.out_strides == (network.patch,) * 2
    size = tuple(side * network.patch for side in grid)
    image = torch.randn(2, 3, *size)
    with torch.inference_mode():
        options = dict(indices=(1, 4), intermediates_only=True)
        expected = timm_s(network, kind, size).forward_intermediates(image, **options)
        for a, b in zip(network(image), expected, strict=True):
            assert (a - b).norm() < 1e-5 * b.norm()


@of_every_kind
def test_other_sizes_are_padded_and_maps_cropped(kind):
    network = build(kind, out_norm=False).eval()
    patch = network.patch
    image = torch.randn(1, 3, 97, 131)
    padded = nn.functional.pad(image, (0, -131 % patch, 0, -97 % patch))
    with torch.inference_mode():
        maps, whole = network(image), network(padded)
    assert [tuple(m.shape[2:]) for m in maps] == [(25, 33), (13, 17), (7, 9), (4, 5)]
    for m, w in zip(maps[:3], whole, strict=False):  # the last level is pooled
        assert torch.equal(m, w[:, :, : m.shape[2], : m.shape[3]])


@of_every_kind
def test_gradient_reaches_every_parameter(kind):
    network = build(kind, pyramid='multi_depth').train()
    sum(m.square().mean() for m in network(torch.randn(2, 3, 97, 131))).backward()
    assert all(parameter.grad.any() for parameter in network.parameters())


@pytest.mark.parametrize('kind', ['deit3', 'eva02', 'dinov3', 'beit', 'sam'])
def test_checkpointing_changes_nothing_for_images_of_two_sizes(kind):
    windows = {} if kind == 'sam' else dict(window_size=3)
    plain, recomputed = (build(kind, with_cp=with_cp, **windows).train() for with_cp in (False, True))
    recomputed.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 64, 112), torch.randn(1, 3, 112, 80)
    for network in (plain, recomputed):
        sum(m.square().mean() for maps in [network(image) for image in images] for m in maps).backward()
    for a, b in zip(recomputed.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


# Windows.


def same_window(grid: tuple[int, int], side: int, prefix: int) -> torch.Tensor:
    """(T, T), whether query and key are of one window, or one of them is a prefix token."""
    y, x = torch.meshgrid(*(torch.arange(length) // side for length in grid), indexing='ij')
    windows = (y * grid[1] + x).flatten()
    allowed = torch.ones(prefix + len(windows), prefix + len(windows), dtype=torch.bool)
    allowed[prefix:, prefix:] = windows[:, None] == windows
    return allowed


@pytest.mark.parametrize('kind', ['deit3', 'dinov2_reg', 'dinov3', 'eva02', 'eva02_b', 'siglip2', 'pe', 'rope_mixed'])
def test_windows_are_timm_s_attention_under_a_mask(kind):
    grid, side = (5, 9), 4
    network = build(kind, window_size=side, pyramid=None, blocks=(0,), out_norm=False).eval()
    image = torch.randn(2, 3, *(length * network.patch for length in grid))
    theirs = timm_s(build(kind, **RAW), kind, tuple(image.shape[2:]))
    assert not theirs.load_state_dict(network.trunk.state_dict(), strict=False).unexpected_keys
    mask = same_window(grid, side, theirs.num_prefix_tokens)
    with torch.inference_mode():
        expected = theirs.forward_intermediates(image, indices=(0,), intermediates_only=True, attn_mask=mask)
        assert (network(image)[0] - expected[0]).norm() < 1e-5 * expected[0].norm()
        assert not torch.allclose(
            expected[0], theirs.forward_intermediates(image, indices=(0,), intermediates_only=True)[0], atol=1e-3
        )


def test_windows_of_beit_have_the_table_of_their_size():
    """Under a mask and the offsets of every pair, written out, in windows of the table's own size."""
    grid, side = (10, 12), 7
    network = build('beit', window_size=side, pyramid=None, blocks=(0,), out_norm=False).eval()
    image = torch.randn(2, 3, *(length * 16 for length in grid))
    block = timm_s(build('beit', **RAW), 'beit', (112, 112)).blocks[0]
    block.load_state_dict(network.trunk.blocks[0].state_dict())
    table = block.attn.relative_position_bias_table
    places = [(y, x) for y in range(grid[0]) for x in range(grid[1])]
    offsets = torch.tensor([[((a - c + 6) * 13 + b - d + 6) % len(table) for c, d in places] for a, b in places])
    index = nn.functional.pad(offsets, (1, 0, 1, 0))
    index[0, :], index[:, 0] = len(table) - 3, len(table) - 2
    index[0, 0] = len(table) - 1
    bias = table[index].permute(2, 0, 1).masked_fill(~same_window(grid, side, 1), -torch.inf)
    block.attn.relative_position_bias_table = None
    with torch.inference_mode():
        tokens = torch.cat([network.trunk.cls_token.expand(2, -1, -1), network.embed(image)[0].flatten(1, 2)], 1)
        expected = block(tokens, shared_rel_pos_bias=bias[None])[:, 1:].unflatten(1, grid).permute(0, 3, 1, 2)
        assert (network(image)[0] - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize('kind', ['deit3', 'dinov3', 'beit'])
def test_a_grid_of_one_window_stays_whole(kind):
    whole, windowed = build(kind).eval(), build(kind, window_size=7).eval()
    windowed.load_state_dict(whole.state_dict())
    image = torch.randn(1, 3, 80, 112)
    with torch.inference_mode():
        for a, b in zip(windowed(image), whole(image), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kind', ['beit', 'sam'])
def test_no_matrix_of_all_pairs_is_kept_for_the_backward_pass(kind):
    network = build(kind).train()
    largest = 0

    def note(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, tensor.numel())
        return tensor

    tokens = 48 * 48
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network(torch.randn(1, 3, 768, 768))
    assert largest < tokens**2 / 2


# Other patches.


@pytest.mark.parametrize('stride', [8, 14, 16, 32])
@pytest.mark.parametrize('size', [(97, 131), (16, 224), (1, 15)])
def test_resampled_maps_stay_where_they_are_in_the_image(stride, size):
    """Of a map that is linear in the position in pixels, between its outermost centres."""
    cells = [-(-pixels // stride) for pixels in size]
    y, x = (stride * (torch.arange(count) + 0.5) for count in cells)
    resampled = resample((3 * y[:, None] + x)[None, None], stride, 16, size)[0, 0]
    wanted = [16 * (torch.arange(-(-pixels // 16)) + 0.5) for pixels in size]
    y, x = (w.clamp(stride / 2, stride * (count - 0.5)) for w, count in zip(wanted, cells, strict=True))
    torch.testing.assert_close(resampled, 3 * y[:, None] + x)


def test_a_pyramid_of_patches_of_14_pixels_has_strides_4_to_32():
    network = build('dinov2')
    assert network.out_strides == (4, 8, 16, 32)
    maps = network(torch.randn(1, 3, 420, 560))
    assert [tuple(m.shape[2:]) for m in maps] == [(105, 140), (53, 70), (27, 35), (14, 18)]


# Files and names.


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
@of_every_kind
def test_a_file_of_timm_loads_fully(kind, suffix, tmp_path):
    name, arguments = KINDS[kind]
    theirs, ours = lively(timm.create_model(name, **arguments)), build(kind)
    path = tmp_path / f'model.{suffix}'
    (save_file if suffix == 'safetensors' else torch.save)(theirs.state_dict(), path)
    report = load_pretrained(ours, path)
    assert set(report.initial) == {key for key in ours.state_dict() if key.startswith(('out_norms.', 'pyramid.'))}
    own, state = ours.trunk.state_dict(), theirs.state_dict()
    assert own.keys() | set(report.ignored) == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in own.items())


@pytest.mark.parametrize(
    'kind', ['deit3', 'dinov2_reg', 'eva02', 'beit', 'siglip2', 'pe', 'distilled', 'dinov3', 'sam']
)
def test_logits_are_timm_s(kind, tmp_path):
    name, arguments = KINDS[kind]
    theirs = lively(timm.create_model(name, num_classes=7, **arguments)).eval()
    torch.save(theirs.state_dict(), tmp_path / 'model.pth')
    arch = dict(model_name=name, **arguments)
    ours = create_classifier('timm_dinov3_s', 7, tmp_path / 'model.pth', arch=arch).eval()
    image = torch.randn(2, 3, *theirs.patch_embed.img_size)
    with torch.inference_mode():
        torch.testing.assert_close(ours(image), theirs(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kind', ['dinov3', 'beit', 'sam'])
def test_stem_and_quarters_hold_all_parameters(kind):
    network = build(kind, frozen_stages=2, pyramid='multi_depth').train()
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad == (network.layer_position(name)[0] >= 2), name
    assert network.depths == (2, 1, 1, 1)
    assert network.layer_position('trunk.patch_embed.proj.weight') == (-1, 0)
    assert network.layer_position('trunk.blocks.4.norm1.weight') == (3, 5)


@pytest.mark.parametrize(
    ('name', 'terms'),
    [
        ('timm_mae_b', "'cc-by-nc-4.0', which forbids commercial use"),
        ('timm_dinov3_s', "'dinov3-license', which has terms of its own"),
        ('timm_deit3_s', None),
    ],
)
def test_a_licence_that_is_not_of_free_software_is_logged_as_weights_are_loaded(name, terms, tmp_path, caplog):
    model = find_backbone(name)[1]['arch']
    arch = dict(model_name=model, **SMALL)
    torch.save(timm.create_model(model, **SMALL).state_dict(), tmp_path / 'model.pth')
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        create_backbone(name, arch=arch)
        assert 'published under' not in caplog.text
        create_backbone(name, arch=arch, checkpoint=tmp_path / 'model.pth')
    finally:
        logger.removeHandler(caplog.handler)
    expected = [f'The weights of {model} are published under {terms}'] if terms else []
    assert [message for message in caplog.messages if 'published under' in message] == expected


def test_registered_names_are_of_networks_with_published_weights():
    names = [name for name in list_backbones() if find_backbone(name)[0] is TimmPlainPyramid]
    assert len(names) == 30
    published = set(timm.list_pretrained())
    assert {find_backbone(name)[1]['arch'] for name in names} <= published


def test_images_are_normalised_as_the_weights_expect():
    with torch.device('meta'):
        assert create_backbone('timm_siglip2_b').image_mean == (127.5,) * 3
        assert create_backbone('timm_eva02_t').image_mean == (122.771, 116.746, 104.094)


@pytest.mark.parametrize(
    ('arch', 'options', 'message'),
    [
        ('resnet18', {}, r'resnet18 of timm is a ResNet.*VisionTransformer, Eva, Beit.*TimmPyramid'),
        ('test_vit_relpos', {}, r'is a VisionTransformerRelPos'),
        ('samvit_base_patch16', dict(window_size=14), r'window_size=14: no windows for blocks.*leave it None'),
        (dict(model_name='test_vit', patch_drop_rate=0.1), {}, r'arch has patch_drop_rate'),
        ('test_vit', dict(pyramid='stem'), r"pyramid='stem' of TimmPlainPyramid: choose one of"),
    ],
)
def test_what_it_cannot_do_is_an_error_that_says_so(arch, options, message):
    with torch.device('meta'), pytest.raises(ValueError, match=message):
        TimmPlainPyramid(arch, **options)
