"""ViT is DeiT and ViT_C: outputs, logits, files, any size, windows, the levels that are made of it."""

import pytest
import torch
import torch.nn.functional as F
from goldens import Golden
from largest import Largest
from plain_definitions import attention, layer_norm, lively, mlp, patches, positions, seen
from torch import Tensor, nn

from hybrid_backbones import create_backbone, create_classifier
from hybrid_backbones.backbones.vit import ViT
from hybrid_backbones.checkpoints import CheckpointError, load_pretrained
from hybrid_backbones.engine.distillation import DistillationLoss

CASES = {
    'deit_tiny_224': ('deit_t', {}),
    'deit_small_224': ('deit_s', {}),
    'deit_tiny_distilled_224': ('deit_t', dict(distilled=True)),
    'vitc_1gf_224': ('vitc_1gf', {}),
    'vitc_4gf_224': ('vitc_4gf', {}),
}
TINY = dict(depth=6, dim=24, heads=2, mlp_ratio=3, stem=())
STEM = ((6, 2), (8, 2), (8, 1), (12, 2), (20, 2))


def official(tmp_path, case: str, **options):
    """A golden, and the classifier with its weights; ViT_C's is the trunk alone, whose head is left as it starts."""
    golden, (name, more) = Golden(case), CASES[case]
    classifier = create_classifier(name, **more, **options)
    state = golden.state_dict()
    if name.startswith('vitc'):
        state |= {f'head.{key}': value for key, value in classifier.head.head.state_dict().items()}
    torch.save(dict(model=state), tmp_path / 'official.pth')
    assert load_pretrained(classifier, tmp_path / 'official.pth').initial == ()
    return golden, classifier


def check_blocks(golden: Golden, network: ViT, maps: list[Tensor]) -> None:
    assert len(maps) == 4
    for block, output in zip(network.out_indices, maps, strict=True):
        golden.check(f'block{block}_grid', output.detach())


@pytest.mark.parametrize('case', CASES)
def test_outputs_and_logits_are_those_of_the_official_code(tmp_path, case):
    last = 10 if case.startswith('vitc') else 11
    golden, network = official(tmp_path, case, blocks=(2, 5, 8, last))
    network.eval()
    image = golden.image()
    with torch.inference_mode():
        check_blocks(golden, network.backbone, network.backbone(image))
        grid, finer = network.backbone.embed(image)
        tokens = network.backbone.head_features(image)
        golden.check('norm', network.head.norm(tokens))
        if case.startswith('vitc'):
            golden.check('stem', grid.permute(0, 3, 1, 2))
            for i in range(3):
                golden.check(f'stem_relu{i}', finer[2 ** (i + 1)])
            golden.check('logits', network.head.norm(tokens)[:, 0])
        else:
            golden.check('patch_tokens', grid.flatten(1, 2))
            golden.check_logits(network(image))


@pytest.mark.parametrize('way', ['fused', 'with gradients', 'training with fixed statistics'])
def test_every_way_of_running_gives_the_official_outputs(tmp_path, way):
    golden, network = official(tmp_path, 'vitc_1gf_224', blocks=(2, 5, 8, 10), norm_eval=True)
    network = network.backbone.train(way.startswith('training'))
    if way == 'fused':
        assert any('.bn.' in key for key in network.state_dict())
        network.fuse()
        assert not any('.bn.' in key for key in network.state_dict())
    with torch.set_grad_enabled(way != 'fused'):
        check_blocks(golden, network, network(golden.image()))


@pytest.mark.parametrize('case', ['deit_tiny_224', 'deit_small_224', 'deit_tiny_distilled_224'])
def test_parameters_equal_the_official_state_dict_to_the_last_number(case):
    golden, (name, options) = Golden(case), CASES[case]
    with torch.device('meta'):
        classifier, detector = create_classifier(name, **options), create_backbone(name, **options)
    golden.check_parameters(classifier, detector, ('norm.', 'head'))


# Millions with the classifier.
@pytest.mark.parametrize(('name', 'expected'), [('1gf', 4.57), ('4gf', 17.75), ('18gf', 81.57), ('36gf', 167.80)])
def test_parameters_of_vit_c_are_the_papers(name, expected):
    with torch.device('meta'):
        classifier = create_classifier(f'vitc_{name}')
    assert sum(p.numel() for p in classifier.parameters()) / 1e6 == pytest.approx(expected, abs=0.006)


def test_a_detector_takes_classy_vision_s_file_but_for_its_head(tmp_path):
    torch.save(Golden('vitc_1gf_224').state_dict(), tmp_path / 'official.pth')
    network = create_backbone('vitc_1gf')
    report = load_pretrained(network, tmp_path / 'official.pth')
    assert {key.split('.')[0] for key in report.initial} == {'pyramid', 'out_norms'}
    assert report.ignored == ('norm.bias', 'norm.weight')
    assert report.matched == 4_374_936 - 2 * 192


@pytest.mark.parametrize('distilled', [False, True])
def test_timm_s_files_load_and_give_timm_s_logits(tmp_path, distilled):
    import timm

    theirs = timm.create_model(f'deit_tiny{"_distilled" * distilled}_patch16_224', num_classes=7).eval()
    lively(theirs)
    torch.save(theirs.state_dict(), tmp_path / 'timm.pth')
    ours = create_classifier('deit_t', 7, tmp_path / 'timm.pth', distilled=distilled).eval()
    image = torch.randn(1, 3, 224, 224, dtype=torch.double)
    with torch.inference_mode():
        torch.testing.assert_close(ours.double()(image), theirs.double()(image))


def definition(network: ViT, x: Tensor) -> list[Tensor]:
    """Tokens after every block."""
    for layer in getattr(network.patch_embed, 'convs', []):
        conv, bn = layer.conv, layer.bn
        x = F.conv2d(x, conv.weight, stride=conv.stride, padding=1)
        x = F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias).relu()
    grid = patches(network.patch_embed.proj, x)
    n, *size, _ = grid.shape
    prefix = list(network.prefix_tokens)
    tokens = torch.cat([*(token.repeat(n, 1, 1) for token in prefix), grid.flatten(1, 2)], 1)
    tokens = tokens + positions(network.pos_embed, len(prefix), tuple(size), network.align_corners)
    out = []
    for block in network.blocks:
        mask = seen(tuple(size), len(prefix), block.attn.window_size)
        tokens = tokens + attention(block.attn, layer_norm(block.norm1, tokens), mask)
        tokens = tokens + mlp(block, layer_norm(block.norm2, tokens))
        out.append(tokens)
    return out


def tiny(stem=(), **options) -> ViT:
    blocks = dict(pyramid=None, blocks=range(6), out_norm=False) if 'pyramid' not in options else {}
    return lively(ViT(dict(TINY, stem=stem), **blocks, **options)).double().eval()


def as_maps(tokens: list[Tensor], size: tuple[int, int], prefix: int) -> list[Tensor]:
    return [t[:, prefix:].transpose(1, 2).unflatten(2, size) for t in tokens]


# 8x18 tokens are as many as 12x12; 10x14 after 14x10 as many as before; then an image that patches do not divide.
SIZES = [(128, 288), (224, 160), (160, 224), (33, 50), (1, 1)]


@pytest.mark.parametrize('options', [{}, dict(distilled=True), dict(stem=STEM), dict(window_size=3)], ids=str)
def test_any_size_gives_what_the_definition_gives(options):
    network = tiny(**options)
    with torch.inference_mode():
        for height, width in SIZES:
            x = torch.randn(2, 3, height, width, dtype=torch.double)
            expected = definition(network, x)
            size = -(-height // 16), -(-width // 16)
            torch.testing.assert_close(list(network(x)), as_maps(expected, size, len(network.prefix_tokens)))
            torch.testing.assert_close(network.head_features(x), expected[-1])


@pytest.mark.parametrize('with_cp', [False, True], ids=['kept', 'recomputed'])
@pytest.mark.parametrize('options', [dict(distilled=True), dict(stem=STEM), dict(window_size=2)], ids=str)
def test_gradients_are_those_of_the_definition(options, with_cp):
    network = tiny(**options, with_cp=with_cp, norm_eval=True).train()
    x = torch.randn(2, 3, 70, 50, dtype=torch.double, requires_grad=True)
    inputs = [x, *network.parameters()]
    expected = as_maps(definition(network, x), (5, 4), len(network.prefix_tokens))
    actual = network(x)
    grads = [torch.randn_like(m) for m in expected]
    torch.testing.assert_close(torch.autograd.grad(actual, inputs, grads), torch.autograd.grad(expected, inputs, grads))


def test_a_window_over_the_whole_grid_changes_nothing():
    network, windowed = tiny(), tiny(window_size=5)
    windowed.load_state_dict(network.state_dict())
    x = torch.randn(1, 3, 80, 49, dtype=torch.double)
    wide = torch.randn(1, 3, 80, 96, dtype=torch.double)
    with torch.inference_mode():
        assert all(torch.equal(a, b) for a, b in zip(network(x), windowed(x), strict=True))
        assert not torch.allclose(network(wide)[-1], windowed(wide)[-1])


def test_the_last_block_of_every_quarter_attends_globally():
    windows = [block.attn.window_size for block in create_backbone('deit_t', window_size=14).blocks]
    assert windows == [14, 14, None] * 4
    windows = [block.attn.window_size for block in create_backbone('vitc_1gf', window_size=14).blocks]
    assert windows == [14, 14, None] * 3 + [14, None]


def test_no_matrix_of_all_pairs_forward_or_backward():
    network = ViT(TINY, out_indices=(2, 3)).train()
    image = torch.randn(1, 3, 512, 512)
    with Largest() as plain:
        definition(network, image)
    assert plain.numbers >= (32 * 32) ** 2
    with Largest() as ours:
        sum(m.mean() for m in network(image)).backward()
    assert ours.numbers == image.numel()


@pytest.mark.parametrize('stem', [(), STEM], ids=['patches', 'convolutions'])
def test_a_file_of_another_size_keeps_its_function_where_it_was_learned(tmp_path, stem):
    """A table learned at 96 pixels, in networks for 96, and for 64 after resizing."""
    options = dict(pyramid=None, out_norm=False, arch=dict(TINY, stem=stem))
    learned = lively(ViT(**options, table_size=96)).eval()
    torch.save(learned.state_dict(), tmp_path / '96.pth')
    same = create_backbone('deit_t', tmp_path / '96.pth', **options, table_size=96).eval()
    other = create_backbone('deit_t', tmp_path / '96.pth', **options, table_size=64).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = learned(image)
        assert torch.equal(*expected, *same(image))
        # The same table of 4x4, resized once by the loader and once by the network.
        torch.testing.assert_close(other(image), expected)
    assert other.pos_embed.shape == (1, 17, 24)
    assert torch.equal(other.pos_embed[:, :1], learned.pos_embed[:, :1])


def test_a_file_with_another_number_of_prefix_tokens_is_an_error(tmp_path):
    torch.save(ViT(TINY, distilled=True).state_dict(), tmp_path / 'distilled.pth')
    with pytest.raises(CheckpointError, match=r'pos_embed is \(1, 198, 24\) in the file, \(1, 197, 24\) here'):
        load_pretrained(ViT(TINY), tmp_path / 'distilled.pth')


def test_a_distilled_classifier_trains_two_heads_and_averages_them():
    student = create_classifier('deit_t', 5, arch=TINY, distilled=True)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
    images = torch.randn(4, 3, 32, 32)
    outputs = student.train()(images)
    assert [tuple(logits.shape) for logits in outputs] == [(4, 5), (4, 5)]
    loss = DistillationLoss(teacher)(outputs, torch.tensor([0, 1, 2, 3]), images)
    torch.testing.assert_close(
        loss,
        (F.cross_entropy(outputs[0], torch.arange(4)) + F.cross_entropy(outputs[1], teacher(images).argmax(1))) / 2,
    )
    loss.backward()
    assert all(p.grad.abs().max() > 0 for p in student.parameters())
    with torch.no_grad():
        torch.testing.assert_close(student.eval()(images), (outputs[0] + outputs[1]) / 2)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(pyramid='fpn'), r"pyramid='fpn' of ViT: choose one of 'simple', 'multi_depth', None"),
        (dict(pyramid='stem'), r"pyramid='stem' of ViT: choose one of 'simple', 'multi_depth', None"),
        (dict(pyramid=None, out_indices=(2, 3)), r'out_indices=\(2, 3\) of ViT with pyramid=None.*blocks='),
        (dict(blocks=(2, 5)), r"blocks=\(2, 5\) of ViT with pyramid='simple'.*pyramid=None"),
        (dict(table_size=200), r'table_size=200 of ViT: expected a positive multiple of 16'),
        (dict(window_size=0), r'window_size=0: expected None or a positive number'),
        (dict(arch=dict(TINY, depth=3)), r'ViT with 3 blocks: expected at least 4'),
        (dict(arch=dict(TINY, stem=((8, 2), (8, 4)))), r'has stride 8; expected 16'),
        (dict(pyramid=None, blocks=(3, 6)), r'blocks=\(3, 6\).*out of \(0, 1, 2, 3, 4, 5\)'),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else '',
)
def test_options_outside_the_architecture(options, message):
    with pytest.raises(ValueError, match=message):
        ViT(**(dict(arch=TINY) | options))
