"""CeiT is the authors' network: outputs, logits, the class token's own path, any size, fused and not."""

import pytest
import torch
import torch.nn.functional as F
from goldens import Golden
from largest import Largest
from plain_definitions import attention, layer_norm, lively, mlp, patches, positions, seen
from torch import Tensor, nn

from hybrid_backbones import create_backbone, create_classifier
from hybrid_backbones.backbones import ceit
from hybrid_backbones.backbones.ceit import CeiT
from hybrid_backbones.checkpoints import load_pretrained
from hybrid_backbones.layers import inverted_bottleneck

CASES = {'ceit_tiny_224': 'ceit_t', 'ceit_small_224': 'ceit_s'}
BLOCKS = (2, 5, 8, 11)
TINY = dict(depth=6, dim=24, heads=2)


def official(tmp_path, case: str, **options):
    golden = Golden(case)
    torch.save(dict(model=golden.state_dict()), tmp_path / 'official.pth')
    return golden, create_classifier(CASES[case], checkpoint=tmp_path / 'official.pth', blocks=BLOCKS, **options)


@pytest.mark.parametrize('case', CASES)
def test_outputs_and_logits_are_those_of_the_official_code(tmp_path, case):
    golden, network = official(tmp_path, case)
    network.eval()
    image = golden.image()
    with torch.inference_mode():
        for block, output in zip(BLOCKS, network.backbone(image), strict=True):
            golden.check(f'block{block}_grid', output)
        grid, finer = network.backbone.embed(image)
        golden.check('i2t_stem', finer[4])
        golden.check('patch_tokens', grid.flatten(1, 2))
        for block, tokens in enumerate(network.backbone.tokens(grid)):
            if block in BLOCKS:
                golden.check(f'block{block}', tokens)
        head = network.head
        asked = head.lca(network.backbone.head_features(image) + head.pos_layer_embed)
        golden.check('lca', asked)
        golden.check('norm', head.norm(asked))
        golden.check_logits(network(image))


@pytest.mark.parametrize('way', ['fused', 'with gradients', 'training with fixed statistics', 'in bands'])
def test_every_way_of_running_gives_the_official_outputs(tmp_path, way, monkeypatch):
    golden, network = official(tmp_path, 'ceit_tiny_224', norm_eval=True)
    network = network.backbone.train(way.startswith('training'))
    if way == 'fused':
        assert sum('running_mean' in key for key in network.state_dict()) == 37
        network.fuse()
        assert not any('running_mean' in key for key in network.state_dict())
    if way == 'in bands':
        monkeypatch.setattr(inverted_bottleneck, '_BAND', 2**12)
        monkeypatch.setattr(inverted_bottleneck, 'convolve_folded', None)
    with torch.set_grad_enabled(way not in ('fused', 'in bands')):
        for block, output in zip(BLOCKS, network(golden.image()), strict=True):
            golden.check(f'block{block}_grid', output.detach())


@pytest.mark.parametrize('case', CASES)
def test_parameters_equal_the_official_state_dict_to_the_last_number(case):
    golden = Golden(case)
    with torch.device('meta'):
        classifier, detector = create_classifier(CASES[case]), create_backbone(CASES[case])
    golden.check_parameters(classifier, detector, ('norm.', 'head.', 'lca.', 'pos_layer_embed'))


def test_parameters_of_the_base_variant():
    with torch.device('meta'):
        classifier = create_classifier('ceit_b')
    assert sum(p.numel() for p in classifier.parameters()) / 1e6 == pytest.approx(94.405, abs=5e-4)


def test_a_detector_takes_an_official_file_but_for_its_head(tmp_path):
    torch.save(Golden('ceit_tiny_224').state_dict(), tmp_path / 'official.pth')
    report = load_pretrained(create_backbone('ceit_t', pyramid='stem'), tmp_path / 'official.pth')
    assert {key.split('.')[0] for key in report.initial} == {'pyramid', 'out_norms'}
    assert {key.split('.')[0] for key in report.ignored} == {'lca', 'norm', 'head', 'pos_layer_embed'}


def batch_norm(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
    mean, var = layer.running_mean, layer.running_var
    if layer.training:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    mean, scale, bias = (t[:, None, None] for t in (mean, layer.weight / (var + 1e-5).sqrt(), layer.bias))
    return (x - mean) * scale + bias


def definition(network: CeiT, x: Tensor) -> list[Tensor]:
    """Tokens after every block."""
    conv = network.i2t.backbone.conv
    x = batch_norm(network.i2t.backbone.bn, F.conv2d(x, conv.weight, stride=2, padding=3))
    grid = patches(network.i2t.proj, F.max_pool2d(x, 3, 2, 1))
    size = tuple(grid.shape[1:3])
    tokens = torch.cat([network.cls_token.repeat(len(x), 1, 1), grid.flatten(1, 2)], 1)
    tokens = tokens + positions(network.pos_embed, 1, size, align_corners=False)
    out = []
    for block in network.blocks:
        tokens = tokens + attention(block.attn, layer_norm(block.norm1, tokens), seen(size, 1, block.attn.window_size))
        y, leff = layer_norm(block.norm2, tokens), block.leff
        local = y[:, 1:].transpose(1, 2).reshape(len(x), -1, *size)
        local = F.gelu(batch_norm(leff.bn1, F.conv2d(local, leff.conv1.weight, leff.conv1.bias)))
        local = F.conv2d(local, leff.conv2.weight, leff.conv2.bias, padding=1, groups=local.shape[1])
        local = batch_norm(leff.bn3, F.conv2d(F.gelu(batch_norm(leff.bn2, local)), leff.conv3.weight, leff.conv3.bias))
        tokens = tokens + torch.cat([y[:, :1], local.flatten(2).transpose(1, 2)], 1)
        out.append(tokens)
    return out


def tiny(**options) -> CeiT:
    return lively(CeiT(TINY, pyramid=None, blocks=range(6), out_norm=False, **options)).double().eval()


def as_maps(tokens: list[Tensor], size: tuple[int, int]) -> list[Tensor]:
    return [t[:, 1:].transpose(1, 2).unflatten(2, size) for t in tokens]


# 8x18 tokens are as many as 12x12; 10x14 after 14x10 as many as before; then an image that patches do not divide.
SIZES = [(128, 288), (224, 160), (160, 224), (33, 50), (1, 1)]


@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize('window_size', [None, 3])
def test_any_size_gives_what_the_definition_gives(window_size, fused):
    network = tiny(window_size=window_size)
    with torch.inference_mode():
        images = [torch.randn(2, 3, *size, dtype=torch.double) for size in SIZES]
        expected = [definition(network, x) for x in images]
        if fused:
            network.fuse()
        for (height, width), x, tokens in zip(SIZES, images, expected, strict=True):
            torch.testing.assert_close(list(network(x)), as_maps(tokens, (-(-height // 16), -(-width // 16))))
            torch.testing.assert_close(network.head_features(x), torch.stack([t[:, 0] for t in tokens], 1))


@pytest.mark.parametrize('norm_eval', [False, True], ids=['statistics of the batch', 'fixed statistics'])
@pytest.mark.parametrize('with_cp', [False, True], ids=['kept', 'recomputed'])
def test_gradients_are_those_of_the_definition(with_cp, norm_eval):
    network = tiny(with_cp=with_cp, norm_eval=norm_eval, window_size=2).train()
    x = torch.randn(2, 3, 70, 50, dtype=torch.double, requires_grad=True)
    inputs = [x, *network.parameters()]
    expected, actual = as_maps(definition(network, x), (5, 4)), network(x)
    grads = [torch.randn_like(m) for m in expected]
    torch.testing.assert_close(list(actual), expected)
    torch.testing.assert_close(torch.autograd.grad(actual, inputs, grads), torch.autograd.grad(expected, inputs, grads))


def test_layer_wise_class_attention_by_its_definition():
    layer = lively(ceit.LayerWiseClassAttention(24, 2)).double()
    x = torch.randn(2, 6, 24, dtype=torch.double)
    everything = torch.ones(6, 6, dtype=torch.bool)
    last = x[:, -1:] + attention(layer.attn, layer_norm(layer.norm1, x), everything)[:, -1:]
    layer.mlp = layer.feedforward
    torch.testing.assert_close(layer(x), last + mlp(layer, layer_norm(layer.norm2, last)))


def test_no_matrix_of_all_pairs_forward_or_backward():
    network = CeiT(TINY, out_indices=(2, 3)).train()
    image = torch.randn(1, 3, 768, 768)
    with Largest() as ours:
        sum(m.mean() for m in network(image)).backward()
    assert ours.numbers <= 64 * 384 * 384 < 2 * 48**4
