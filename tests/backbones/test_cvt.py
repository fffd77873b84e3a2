"""CvT is the authors' network: outputs, class token, sizes, gradients, without the matrix of all pairs."""

import pytest
import torch
import torch.nn.functional as F
from goldens import Golden
from largest import Largest
from torch import Tensor, nn

from hybrid_backbones import create_backbone, create_classifier
from hybrid_backbones.backbones.cvt import CvT, Stage
from hybrid_backbones.checkpoints import load_pretrained

CASES = {
    'cvt_13_224x224': 'cvt_13',
    'cvt_13_192x256': 'cvt_13',
    'cvt_13_odd_150x203': 'cvt_13',
    'cvt_21_224x224': 'cvt_21',
    'cvt_21_192x256': 'cvt_21',
    'cvt_w24_224x224': 'cvt_w24',
}
TRUNK = dict(out_norm=False, extra_level=None)
TINY = dict(depths=(1, 1, 2), dims=(8, 16, 24), heads=(1, 2, 3))


def official(golden: Golden, network: nn.Module) -> nn.Module:
    """`network`, built on the meta device to save its initialisation, with the golden's weights."""
    keys = network.load_state_dict(golden.state_dict(), strict=False, assign=True)
    assert not [key for key in keys.missing_keys if not key.endswith('num_batches_tracked')]
    return network


@pytest.mark.parametrize('case', CASES)
def test_outputs_and_logits_are_those_of_the_official_code(case):
    golden = Golden(case)
    with torch.device('meta'):
        network = create_classifier(CASES[case])
    official(golden, network).eval()
    with torch.inference_mode():
        for stage, output in enumerate(network.backbone(golden.image())):
            golden.check(f'stage{stage}', output)
        class_token = network.backbone.head_features(golden.image())
        golden.check('stage2_cls', class_token[:, None])
        golden.check('norm', network.head.norm(class_token)[:, None])
        golden.check_logits(network.head(class_token))


@pytest.mark.parametrize('way', ['fused', 'with gradients', 'training with fixed statistics'])
@pytest.mark.parametrize('case', ['cvt_13_odd_150x203', 'cvt_21_192x256'])
def test_every_way_of_running_gives_the_official_outputs(case, way):
    golden = Golden(case)
    with torch.device('meta'):
        network = create_classifier(CASES[case], norm_eval=True)
    network = official(golden, network).backbone.train(way.startswith('training'))
    if way == 'fused':
        network.fuse()
        assert not any('bn' in key for key in network.state_dict())
    with torch.set_grad_enabled(way != 'fused'):
        outputs = network(golden.image())
    for stage, output in enumerate(outputs):
        golden.check(f'stage{stage}', output.detach())


@pytest.mark.parametrize('case', ['cvt_13_224x224', 'cvt_21_224x224', 'cvt_w24_224x224'])
def test_parameters_equal_the_official_state_dict_to_the_last_number(case):
    meta = Golden(case).meta
    with torch.device('meta'):
        classifier = create_classifier(CASES[case])
        detector = create_backbone(CASES[case])
    shapes = {key: torch.Size(shape) for key, shape, _ in meta['state_dict']}
    assert {key: value.shape for key, value in classifier.state_dict().items()} == shapes
    assert sum(p.numel() for p in classifier.parameters()) == meta['num_parameters']
    # What a detector adds to the trunk, and what it does without.
    ours = {key for key in detector.state_dict() if not key.startswith(detector.dense_only_prefixes)}
    assert ours == {key for key in shapes if not key.startswith(('norm.', 'head.'))}


def test_an_official_file_fills_all_but_the_added_level(tmp_path):
    torch.save(Golden('cvt_13_192x256').state_dict(), tmp_path / 'official.pth')
    with torch.device('meta'):
        network = create_backbone('cvt_13')
    network.to_empty(device='cpu')
    network.extra_level.weight.data.fill_(3.0)
    report = load_pretrained(network, tmp_path / 'official.pth')
    assert {key.split('.')[0] for key in report.initial} == {'extra_level', 'out_norms'}
    assert {key.split('.')[0] for key in report.ignored} == {'norm', 'head'}
    assert report.matched == 19_997_480 - 1000 * 385 - 2 * 384
    assert (network.extra_level.weight == 3.0).all()


def lively(network: nn.Module) -> nn.Module:
    """Weights and statistics under which every layer matters."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            nn.init.normal_(tensor, mean=name.endswith(('norm1.weight', 'bn.weight')), std=0.4)
        if name.endswith('running_var'):
            tensor.abs_().add_(0.5)
    return network


def layer_norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.weight + layer.bias


def batch_norm(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
    mean, var = layer.running_mean, layer.running_var
    if layer.training:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    mean, scale, bias = (t[:, None, None] for t in (mean, layer.weight / (var + 1e-5).sqrt(), layer.bias))
    return (x - mean) * scale + bias


def stage_by_definition(stage: Stage, x: Tensor, heads: int, kv_stride: int) -> tuple[Tensor, Tensor]:
    """A stage as published, (N, C, H, W) to its map and class tokens (N, 0 or 1, C), with all pairs in one matrix."""
    x = stage.patch_embed.proj(x)
    n, dim, height, width = x.shape
    x = layer_norm(stage.patch_embed.norm, x.flatten(2).transpose(1, 2))
    classes = 0
    if stage.cls_token is not None:
        x, classes = torch.cat([stage.cls_token.repeat(n, 1, 1), x], 1), 1
    for block in stage.blocks:
        normed = layer_norm(block.norm1, x)
        grid = normed[:, classes:].transpose(1, 2).reshape(n, dim, height, width)
        projected = []
        for part, stride in (('q', 1), ('k', kv_stride), ('v', kv_stride)):
            layer = getattr(block.attn, f'conv_proj_{part}')
            local = batch_norm(layer.bn, F.conv2d(grid, layer.conv.weight, stride=stride, padding=1, groups=dim))
            tokens = torch.cat([normed[:, :classes], local.flatten(2).transpose(1, 2)], 1)
            projected.append(getattr(block.attn, f'proj_{part}')(tokens).reshape(n, -1, heads, dim // heads))
        q, k, v = projected
        weights = torch.einsum('nqhc,nkhc->nhqk', q, k) / dim**0.5
        x = x + block.attn.proj(torch.einsum('nhqk,nkhc->nqhc', weights.softmax(-1), v).reshape(n, -1, dim))
        hidden = block.mlp.fc1(layer_norm(block.norm2, x))
        x = x + block.mlp.fc2(hidden * torch.sigmoid(1.702 * hidden))
    return x[:, classes:].transpose(1, 2).reshape(n, dim, height, width), x[:, :classes]


def definition(network: CvT, x: Tensor, kv_stride: int = 2) -> list[Tensor]:
    """Maps of the three stages and the class token (N, C)."""
    outputs = []
    for index, heads in enumerate(TINY['heads']):
        x, class_token = stage_by_definition(getattr(network, f'stage{index}'), x, heads, kv_stride)
        outputs.append(x)
    return [*outputs, class_token[:, 0]]


def outputs_of(network: CvT, x: Tensor) -> list[Tensor]:
    return [*network(x), network.head_features(x)]


# 32x72 gives 8x18 tokens, 48x48 as many in a square; then odd ones, either way up, and the smallest.
@pytest.mark.parametrize('size', [(32, 72), (48, 48), (45, 83), (83, 45), (3, 3), (3, 50), (6, 7)], ids=str)
@pytest.mark.parametrize('fused', [False, True])
def test_any_size_gives_what_the_definition_gives(size, fused):
    network = lively(CvT(TINY, **TRUNK)).double().eval()
    x = torch.randn(2, 3, *size, dtype=torch.double)
    with torch.inference_mode():
        expected = definition(network, x)
        if fused:
            network.fuse()
        torch.testing.assert_close(outputs_of(network, x), expected)


def test_two_sizes_of_as_many_tokens_one_after_another():
    network = lively(CvT(TINY, **TRUNK)).double().eval()
    with torch.inference_mode():
        for size in ((32, 72), (72, 32), (48, 48)):
            x = torch.randn(1, 3, *size, dtype=torch.double)
            torch.testing.assert_close(outputs_of(network, x), definition(network, x))


@pytest.fixture(params=[1, 5], ids=lambda threads: f'{threads} threads')
def threads(request):
    """More threads than heads share a head between them."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures('threads')
@pytest.mark.parametrize('norm_eval', [False, True], ids=['statistics of the batch', 'fixed statistics'])
@pytest.mark.parametrize('with_cp', [False, True], ids=['kept', 'recomputed'])
@pytest.mark.parametrize('size', [(45, 67), (24, 9)], ids=str)
def test_gradients_are_those_of_the_definition(size, with_cp, norm_eval):
    network = lively(CvT(TINY, norm_eval=norm_eval, with_cp=with_cp, **TRUNK)).double().train()
    x = torch.randn(2, 3, *size, dtype=torch.double, requires_grad=True)
    inputs = [x, *network.parameters()]
    expected = definition(network, x)[:3]
    actual = network(x)
    grads = [torch.randn_like(m) for m in expected]
    torch.testing.assert_close(list(actual), expected)
    torch.testing.assert_close(torch.autograd.grad(actual, inputs, grads), torch.autograd.grad(expected, inputs, grads))


@pytest.mark.parametrize('kv_stride', [1, 3, 4])
def test_kv_stride_thins_keys_and_values_with_the_same_parameters(kv_stride):
    network = lively(CvT(TINY, kv_stride=kv_stride, **TRUNK)).double().eval()
    assert network.state_dict().keys() == CvT(TINY, **TRUNK).state_dict().keys()
    x = torch.randn(1, 3, 45, 70, dtype=torch.double)
    with torch.inference_mode():
        torch.testing.assert_close(outputs_of(network, x), definition(network, x, kv_stride))
    with pytest.raises(ValueError, match='kv_stride=0'):
        CvT(TINY, kv_stride=0)


@pytest.mark.usefixtures('threads')
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_no_matrix_of_all_pairs_forward_or_backward(dtype):
    network = CvT(TINY).train()
    image = torch.randn(1, 3, 256, 256)
    hidden = 64 * 64 * 4 * 8
    with Largest() as plain:
        definition(network, image)
    assert plain.numbers >= 64 * 64 * 32 * 32
    with Largest() as ours:
        with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
            maps = network(image)
        sum(m.float().mean() for m in maps).backward()
    assert ours.numbers <= max(hidden, image.numel())


def test_sizes_and_layout_of_the_maps():
    network = CvT(TINY, out_norm=False).eval()
    with torch.inference_mode():
        maps = network(torch.randn(2, 3, 150, 203))
    assert [tuple(m.shape[2:]) for m in maps] == [(37, 51), (19, 26), (10, 13), (5, 7)]
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in maps)


def test_the_extra_level_is_a_convolution_a_pooling_or_left_out():
    x = torch.randn(1, 3, 70, 100)
    pooled = CvT(TINY, extra_level='pool', out_norm=False).eval()
    three = CvT(TINY, extra_level=None, out_norm=False).eval()
    assert pooled.state_dict().keys() == three.state_dict().keys()
    assert (pooled.out_channels, pooled.out_strides) == ((8, 16, 24, 24), (4, 8, 16, 32))
    with torch.inference_mode():
        *_, last, extra = pooled(x)
    assert torch.equal(extra, F.max_pool2d(last, 3, 2, 1))
    convolved = CvT(TINY, out_norm=False)
    assert {key for key in convolved.state_dict() if key not in three.state_dict()} == {
        'extra_level.weight',
        'extra_level.bias',
    }
    assert (three.out_indices, three.out_strides, CvT(TINY).out_strides) == ((0, 1, 2), (4, 8, 16), (4, 8, 16, 32))
    with pytest.raises(ValueError, match=r'out_indices=\(0, 1, 2, 3\).*out of \(0, 1, 2\)'):
        CvT(TINY, extra_level=None, out_indices=(0, 1, 2, 3))
    with pytest.raises(ValueError, match=r"extra_level='mean'.*'conv', 'pool' or None"):
        CvT(TINY, extra_level='mean')


def test_drop_path_grows_inside_the_third_stage_only():
    network = CvT(dict(TINY, depths=(2, 2, 4)), drop_path_rate=0.3)
    rates = [[block.drop_path.rate for block in getattr(network, f'stage{i}').blocks] for i in range(3)]
    assert rates == [[0, 0], [0, 0], pytest.approx([0, 0.1, 0.2, 0.3])]


def test_synchronised_statistics_run_where_they_are_fixed():
    network = lively(CvT(TINY)).eval()
    x = torch.randn(1, 3, 40, 56)
    with torch.inference_mode():
        expected = network(x)
        synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        torch.testing.assert_close(synchronised(x), expected)


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


@pytest.mark.parametrize('size', [(64, 96), (75, 101)])
def test_logits_are_those_of_transformers(size, tmp_path):
    """With the authors' QuickGELU in place of its GELU; its last stage needs three blocks."""
    from transformers import CvtConfig, CvtForImageClassification

    config = CvtConfig(embed_dim=[8, 16, 24], num_heads=[1, 2, 3], depth=[1, 2, 3], num_labels=7)
    theirs = CvtForImageClassification(config).eval()
    for module in theirs.modules():
        if hasattr(module, 'activation'):
            module.activation = QuickGELU()
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.5)
    torch.save(theirs.state_dict(), tmp_path / 'cvt.pth')
    arch = TINY | dict(depths=(1, 2, 3))
    ours = create_classifier('cvt_13', 7, tmp_path / 'cvt.pth', arch=arch).eval()
    image = torch.randn(2, 3, *size)
    with torch.inference_mode():
        torch.testing.assert_close(ours(image), theirs(image).logits, rtol=1e-5, atol=1e-5)
