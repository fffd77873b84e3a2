"""Levels of a plain network: what is made of which map, at any size."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_backbones.backbones.vit import ViT
from hybrid_backbones.layers.plain_pyramid import PlainPyramid, level_channels

ARCH = dict(depth=6, dim=16, heads=2, mlp_ratio=2, stem=((4, 2), (6, 2), (10, 2), (12, 2)))


def doubled(layer: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """Every pixel as a square of four, by its definition."""
    n, _, height, width = x.shape
    out = torch.einsum('nchw,cdyx->ndhywx', x, layer.weight) + layer.bias[:, None, None, None, None]
    return out.reshape(n, -1, 2 * height, 2 * width)


def levels_by_definition(pyramid: PlainPyramid, maps: list[Tensor]) -> list[Tensor]:
    first, norm, _, last = pyramid.resize['0']
    wide = doubled(first, maps[0])
    wide = F.layer_norm(wide.permute(0, 2, 3, 1), wide.shape[1:2], norm.weight, norm.bias, 1e-6).permute(0, 3, 1, 2)
    pooled = F.pad(maps[3], (0, maps[3].shape[3] % 2, 0, maps[3].shape[2] % 2), value=-torch.inf)
    pooled = pooled.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))
    return [doubled(last, F.gelu(wide)), doubled(pyramid.resize['1'], maps[1]), maps[2], pooled]


# Images whose grid is 4x6, of which padding up to 64x96 is cut off again.
@pytest.mark.parametrize(
    ('size', 'sides'),
    [
        ((64, 96), [(16, 24), (8, 12), (4, 6), (2, 3)]),
        ((63, 81), [(16, 21), (8, 11), (4, 6), (2, 3)]),
        ((49, 90), [(13, 23), (7, 12), (4, 6), (2, 3)]),
    ],
)
@pytest.mark.parametrize('kind', ['simple', 'multi_depth'])
def test_levels_are_the_maps_resized_and_cut_to_the_image(kind, size, sides):
    pyramid = PlainPyramid(kind, 16, {}, (0, 1, 2, 3))
    maps = list(torch.randn(4, 2, 16, 4, 6))
    levels = pyramid(maps, {}, size)
    assert [tuple(level.shape[2:]) for level in levels] == sides
    assert tuple(level.shape[1] for level in levels) == level_channels(kind, 16, {})
    for level, expected in zip(levels, levels_by_definition(pyramid, maps), strict=True):
        torch.testing.assert_close(level, expected[:, :, : level.shape[2], : level.shape[3]], rtol=1e-4, atol=1e-5)
        assert level.is_contiguous(memory_format=torch.channels_last)


def test_channels():
    assert level_channels('simple', 384, {4: 64}) == (96, 192, 384, 384)
    assert level_channels('multi_depth', 384, {4: 64}) == (384,) * 4
    assert level_channels('stem', 384, {4: 64}) == (64, 192, 384, 384)
    assert level_channels('stem', 384, {2: 48, 4: 96, 8: 192}) == (96, 192, 384, 384)


@pytest.fixture
def network() -> ViT:
    return ViT(ARCH, pyramid=None, blocks=range(6), out_norm=False).eval()


def with_pyramid(network: ViT, kind: str, **options) -> ViT:
    levels = ViT(ARCH, pyramid=kind, out_norm=False, **options).eval()
    trunk = {key: value for key, value in network.state_dict().items() if key in levels.state_dict()}
    assert not [key for key in levels.load_state_dict(trunk, strict=False).missing_keys if 'pyramid' not in key]
    return levels


@pytest.mark.parametrize(('kind', 'blocks'), [('simple', (5, 5, 5, 5)), ('multi_depth', (1, 2, 4, 5))])
def test_levels_come_from_their_blocks(network, kind, blocks):
    levels, image = with_pyramid(network, kind), torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        maps = network(image)
        expected = levels_by_definition(levels.pyramid, [maps[block] for block in blocks])
        torch.testing.assert_close(list(levels(image)), expected, rtol=1e-4, atol=1e-5)


def test_finer_levels_come_from_the_stem(network):
    levels, image = with_pyramid(network, 'stem'), torch.randn(2, 3, 71, 99)
    assert levels.out_channels == (6, 10, 16, 16)
    assert not levels.pyramid.state_dict()
    with torch.inference_mode():
        _, finer = network.embed(image)
        maps = levels(image)
        assert torch.equal(maps[0], finer[4])
        assert torch.equal(maps[1], finer[8])
        assert torch.equal(maps[2], network(image)[-1])


def test_only_what_the_levels_need_is_built():
    assert len(ViT(ARCH, pyramid='multi_depth', out_indices=(0, 1)).blocks) == 3
    shallow = ViT(ARCH, pyramid='simple', out_indices=(1, 2))
    assert len(shallow.blocks) == 6
    assert set(shallow.pyramid.resize) == {'1', '2'}
