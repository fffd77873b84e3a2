"""ConViT is the authors' network at any size, and its factorised attention equals the one over all pairs."""

import math

import pytest
import timm
import torch
from goldens import Golden
from largest import Largest
from plain_definitions import attend, attention, layer_norm, lively, mlp, patches, positions, seen
from torch import Tensor

from hybrid_backbones import create_backbone, create_classifier
from hybrid_backbones.backbones.convit import ConViT, GatedPositionalAttention, position_attention
from hybrid_backbones.checkpoints import load_pretrained
from hybrid_backbones.layers.drop_path import DropPath

CASES = {'convit_tiny_224': 'convit_t', 'convit_small_224': 'convit_s'}
BLOCKS = (0, 2, 5, 8, 9, 11)
TINY = dict(depth=6, dim=24, heads=4, local=4)


@pytest.mark.parametrize('case', CASES)
def test_outputs_and_logits_are_those_of_the_official_code(shared, tmp_path, case):
    golden = Golden(shared, case)
    torch.save(dict(model=golden.state_dict()), tmp_path / 'official.pth')
    network = create_classifier(CASES[case], checkpoint=tmp_path / 'official.pth', out_indices=BLOCKS).eval()
    image = golden.image()
    with torch.inference_mode():
        for block, output in zip(BLOCKS, network.backbone(image), strict=True):
            golden.check(f'block{block}_grid', output)
        tokens = network.backbone.head_features(image)
        golden.check('block11', tokens)
        golden.check('norm', network.head.norm(tokens))
        golden.check_logits(network(image))
    # With gradients, in training mode.
    for block, output in zip(BLOCKS, network.backbone.train()(image), strict=True):
        golden.check(f'block{block}_grid', output.detach())


@pytest.mark.parametrize('case', CASES)
def test_parameters_equal_the_official_state_dict_to_the_last_number(shared, case):
    golden = Golden(shared, case)
    with torch.device('meta'):
        classifier, detector = create_classifier(CASES[case]), create_backbone(CASES[case])
    golden.check_parameters(classifier, detector, ('norm.', 'head.'))


# Table 1 of the paper, in millions as its code counts them.
@pytest.mark.parametrize(
    ('name', 'expected'), [('b', 86.540), ('t_plus', 9.973), ('s_plus', 48.980), ('b_plus', 153.135)]
)
def test_parameters_of_the_other_variants(name, expected):
    with torch.device('meta'):
        classifier = create_classifier(f'convit_{name}')
    assert sum(p.numel() for p in classifier.parameters()) / 1e6 == pytest.approx(expected, abs=5e-4)


def test_timm_s_files_load_and_give_timm_s_logits(tmp_path):
    theirs = lively(timm.create_model('convit_tiny', num_classes=7)).double().eval()
    torch.save(theirs.state_dict(), tmp_path / 'timm.pth')
    ours = create_classifier('convit_t', 7, tmp_path / 'timm.pth').double().eval()
    for module in theirs.modules():
        if hasattr(module, 'rel_indices'):
            module.rel_indices = module.get_rel_indices(196).double()
    image = torch.randn(1, 3, 224, 224, dtype=torch.double)
    with torch.inference_mode():
        torch.testing.assert_close(ours(image), theirs(image))


def position_weights(layer: GatedPositionalAttention, size: tuple[int, int], mask: Tensor) -> Tensor:
    """Softmax of the position scores of all pairs, (heads, N, N)."""
    height, width = size
    place = torch.arange(height * width)
    dx = place % width - (place % width)[:, None]
    dy = place // width - (place // width)[:, None]
    offsets = torch.stack([dx, dy, dx**2 + dy**2], -1).to(layer.pos_proj.weight.dtype)
    return layer.pos_proj(offsets).permute(2, 0, 1).masked_fill(~mask, -torch.inf).softmax(-1)


def gpsa(layer: GatedPositionalAttention, x: Tensor, size: tuple[int, int], mask: Tensor) -> Tensor:
    n, tokens, dim = x.shape
    q, k = layer.qk(x).reshape(n, tokens, 2, layer.num_heads, -1).permute(2, 0, 3, 1, 4)
    v = layer.v(x).reshape(n, tokens, layer.num_heads, -1).transpose(1, 2)
    gate = layer.gating_param.sigmoid()[:, None, None]
    position = position_weights(layer, size, mask)
    weights = (1 - gate) * attend(q, k, torch.eye(tokens, dtype=x.dtype).expand_as(q @ k.mT), mask) + gate * position
    weights = weights / weights.sum(-1, keepdim=True)
    return layer.proj((weights @ v).transpose(1, 2).reshape(n, tokens, dim))


def definition(network: ConViT, x: Tensor) -> list[Tensor]:
    """Tokens after every block."""
    grid = patches(network.patch_embed.proj, x)
    size = tuple(grid.shape[1:3])
    tokens = grid.flatten(1, 2) + positions(network.pos_embed, 0, size, align_corners=False)
    out = []
    for index, block in enumerate(network.blocks):
        if index == network.local:
            tokens = torch.cat([network.cls_token.repeat(len(x), 1, 1), tokens], 1)
        mask = seen(size, int(index >= network.local), block.attn.window_size)
        y = layer_norm(block.norm1, tokens)
        tokens = tokens + (gpsa(block.attn, y, size, mask) if index < network.local else attention(block.attn, y, mask))
        tokens = tokens + mlp(block, layer_norm(block.norm2, tokens))
        out.append(tokens)
    return out


def tiny(**options) -> ConViT:
    return lively(ConViT(TINY, pyramid=None, out_indices=range(6), out_norm=False, **options)).double().eval()


def as_maps(tokens: list[Tensor], size: tuple[int, int]) -> list[Tensor]:
    return [t[:, -size[0] * size[1] :].transpose(1, 2).unflatten(2, size) for t in tokens]


# 8x18 tokens are as many as 12x12; 10x14 after 14x10 as many as before; then an image that patches do not divide.
SIZES = [(128, 288), (224, 160), (160, 224), (33, 50), (1, 1)]


@pytest.mark.parametrize('window_size', [None, 3])
def test_any_size_gives_what_the_definition_gives(window_size):
    network = tiny(window_size=window_size)
    with torch.inference_mode():
        for height, width in SIZES:
            x = torch.randn(2, 3, height, width, dtype=torch.double)
            expected = definition(network, x)
            torch.testing.assert_close(list(network(x)), as_maps(expected, (-(-height // 16), -(-width // 16))))
            torch.testing.assert_close(network.head_features(x), expected[-1])


@pytest.mark.parametrize('with_cp', [False, True], ids=['kept', 'recomputed'])
@pytest.mark.parametrize('window_size', [None, 2])
def test_gradients_are_those_of_the_definition(window_size, with_cp):
    network = tiny(window_size=window_size, with_cp=with_cp).train()
    x = torch.randn(2, 3, 70, 50, dtype=torch.double, requires_grad=True)
    inputs = [x, *network.parameters()]
    expected, actual = as_maps(definition(network, x), (5, 4)), network(x)
    grads = [torch.randn_like(m) for m in expected]
    torch.testing.assert_close(torch.autograd.grad(actual, inputs, grads), torch.autograd.grad(expected, inputs, grads))


@pytest.mark.parametrize('size', [(8, 18), (12, 12), (10, 14), (14, 10), (1, 7), (25, 42)])
@pytest.mark.parametrize('start', ['local', 'anywhere'])
def test_the_factorised_position_attention_is_the_one_over_all_pairs_in_fp32(size, start):
    layer = GatedPositionalAttention(36, 9, None, locality_strength=1.0)
    layer.init_local()
    if start == 'anywhere':
        torch.nn.init.normal_(layer.pos_proj.weight, std=0.02)
        torch.nn.init.normal_(layer.pos_proj.bias)
    v = torch.randn(2, *size, 9, 4)
    grad = torch.randn_like(v) / math.prod(size)
    everything = torch.ones(math.prod(size), math.prod(size), dtype=torch.bool)

    def over_all_pairs(v: Tensor) -> Tensor:
        return torch.einsum('hqk,nkhd->nqhd', position_weights(layer, size, everything), v.flatten(1, 2))

    results = []
    for dtype, function in (
        (torch.float32, lambda v: position_attention(v, *layer._weights(*size)).flatten(1, 2)),
        (torch.float64, over_all_pairs),
    ):
        inputs = [v.to(dtype).requires_grad_(), *layer.to(dtype).pos_proj.parameters()]
        out = function(inputs[0])
        grads = torch.autograd.grad(out, inputs, grad.flatten(1, 2).to(dtype))
        results.append([t.double() for t in (out, *grads)])
    torch.testing.assert_close(*results, rtol=5e-5, atol=1e-6)


def test_a_window_over_the_whole_grid_changes_nothing():
    network, windowed = tiny(), tiny(window_size=5)
    windowed.load_state_dict(network.state_dict())
    x, wide = (torch.randn(1, 3, 80, width, dtype=torch.double) for width in (49, 96))
    with torch.inference_mode():
        assert all(torch.equal(a, b) for a, b in zip(network(x), windowed(x), strict=True))
        assert not torch.allclose(network(wide)[-1], windowed(wide)[-1])


def test_heads_start_at_the_places_of_a_kernel_and_stay_there_through_init_weights():
    network = ConViT(TINY, locality_strength=8.0)
    network.init_weights()
    layer = network.blocks[0].attn
    rows, columns = layer._weights(5, 7)
    assert torch.equal(layer.v.weight, torch.eye(24))
    assert layer.gating_param.eq(1).all()
    # Two by two heads are centred half a patch away: as near to this patch as to the next.
    for head, (down, across) in enumerate([(-1, -1), (1, -1), (-1, 1), (1, 1)]):
        torch.testing.assert_close(rows[head, 2, [2, 2 + down]], torch.full((2,), 0.5), atol=1e-3, rtol=0)
        torch.testing.assert_close(columns[head, 3, [3, 3 + across]], torch.full((2,), 0.5), atol=1e-3, rtol=0)
    # Nine heads are centred on the nine patches around.
    layer = ConViT(dict(TINY, heads=9, dim=27), locality_strength=8.0).blocks[3].attn
    rows, columns = layer._weights(5, 7)
    centres = [
        (row.argmax().item() - 2, column.argmax().item() - 3)
        for row, column in zip(rows[:, 2], columns[:, 3], strict=True)
    ]
    assert centres == [(down, across) for across in (-1, 0, 1) for down in (-1, 0, 1)]


def test_no_matrix_of_all_pairs_forward_or_backward():
    network = ConViT(TINY, out_indices=(2, 3)).train()
    image = torch.randn(1, 3, 512, 512)
    with Largest() as ours:
        sum(m.mean() for m in network(image)).backward()
    assert ours.numbers == image.numel() < (32 * 32) ** 2


def test_without_the_last_blocks_there_is_no_class_token(tmp_path):
    full = ConViT(TINY, pyramid=None)
    torch.save(full.state_dict(), tmp_path / 'full.pth')
    network = create_backbone('convit_t', tmp_path / 'full.pth', arch=TINY, pyramid='multi_depth', out_indices=(0, 1))
    assert len(network.blocks) == 3
    assert 'cls_token' not in network.state_dict()
    assert torch.equal(network.blocks[2].attn.qk.weight, full.blocks[2].attn.qk.weight)


def test_drop_path_grows_from_zero_over_all_blocks():
    rates = [m.rate for m in ConViT(TINY, drop_path_rate=0.5).modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])


def test_positions_of_another_size_are_resized_when_loading(tmp_path):
    torch.save(ConViT(TINY, table_size=96).state_dict(), tmp_path / '96.pth')
    network = ConViT(TINY, table_size=64)
    assert load_pretrained(network, tmp_path / '96.pth').initial == ()
    assert network.pos_embed.shape == (1, 16, 24)


def test_heads_that_are_no_square_number_are_an_error():
    with pytest.raises(ValueError, match='ConViT with 6 heads: expected a square number'):
        ConViT(dict(TINY, heads=6))
