"""Feature pyramids as images: colours of known maps, and pictures of real images of any shape."""

from pathlib import Path

import numpy as np
import pytest
import torch
from visualize.pictures import colour_share, pixels

from hybrid_backbones import create_backbone
from hybrid_backbones.visualize import draw_features
from hybrid_backbones.visualize.backbone import load_network
from hybrid_backbones.visualize.features import pca_colours

TINY = dict(arch=dict(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), kernel_size=5))
CONFIG = """
model = dict(
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[1.0, 2.0, 3.0], std=[2.0, 2.0, 2.0], bgr_to_rgb=False),
    backbone=dict(type='Conv2Former', arch=dict(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), kernel_size=5)))
"""


def test_components_are_sorted_into_red_green_and_blue() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 41), torch.linspace(-1, 1, 81), indexing='ij')
    mixing = torch.linalg.qr(torch.randn(6, 6)).Q[:, :2]
    level = mixing[:, :1, None] * 5 * x + mixing[:, 1:, None] * y + 3
    red, green, blue = pca_colours(level).transpose(2, 0, 1)
    assert abs(np.corrcoef(red.ravel(), x.flatten())[0, 1]) > 0.999
    assert abs(np.corrcoef(green.ravel(), y.flatten())[0, 1]) > 0.999
    assert (blue == 0.5).all(), 'no third direction'
    assert (red.min(), red.max()) == (0, 1)


@pytest.mark.parametrize('channels', [1, 2, 3, 8])
def test_a_constant_map_is_grey(channels: int) -> None:
    colours = pca_colours(torch.full((channels, 4, 5), 7.3))
    assert colours.shape == (4, 5, 3) and (colours == 0.5).all()


def test_colours_do_not_depend_on_the_sign_of_an_axis() -> None:
    level = torch.randn(5, 6, 7)
    assert pca_colours(level).tolist() == pca_colours(level.clone()).tolist()
    # Offsets of channels are no directions.
    np.testing.assert_allclose(pca_colours(level + torch.randn(5, 1, 1)), pca_colours(level), atol=1e-4)


@pytest.mark.parametrize('size', [None, (64, 200), (181, 47)])
def test_pictures_of_a_photo(photo: Path, tmp_path: Path, size: tuple[int, int] | None) -> None:
    out = draw_features('conv2former_t', photo, tmp_path / 'new' / 'out.png', size=size, options=TINY)
    picture = pixels(out)
    height, width = size or pixels(photo).shape[:2]
    assert (picture.shape[0] > picture.shape[1]) == (height > 2.5 * width)
    assert colour_share(picture, (253, 231, 37)) > 0, 'the strongest cell, in yellow'
    assert list(out.parent.iterdir()) == [out]


def test_a_constant_image_through_a_network_of_one_pixel(tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / 'grey.png'), np.full((40, 40, 3), 99, np.uint8))
    # Patches and linear layers alone: every token is the same but for its position.
    options = dict(pyramid=None, arch=dict(depth=4, dim=16, heads=2, mlp_ratio=2, stem=()))
    network = load_network('deit_t', options=options)
    network.backbone.pos_embed.zero_()
    with torch.no_grad():
        (level,) = network.backbone(network.input_of(np.full((32, 48, 3), 99, np.uint8)))
    assert level.shape == (1, 16, 2, 3) and (pca_colours(level[0]) == 0.5).all()
    assert draw_features('deit_t', tmp_path / 'grey.png', tmp_path / 'out.png', options=options).is_file()


def test_networks_of_configs_bring_their_normalisation_and_weights(tmp_path: Path) -> None:
    config = tmp_path / 'detector.py'
    config.write_text(CONFIG)
    trained = create_backbone('conv2former_t', **TINY)
    state = {f'backbone.{key}': value for key, value in trained.state_dict().items()}
    torch.save(dict(state_dict=dict(state, **{'neck.weight': torch.ones(1)})), tmp_path / 'epoch_1.pth')
    network = load_network(str(config), tmp_path / 'epoch_1.pth')
    for name, value in network.backbone.state_dict().items():
        assert torch.equal(value, trained.state_dict()[name])
    assert not network.backbone.training
    # Blue first, as the config has it.
    assert network.input_of(np.array([[[7, 8, 9]]], np.uint8)).flatten().tolist() == [4, 3, 2]


def test_untrained_networks_are_always_the_same() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = load_network('conv2former_t', options=TINY).backbone.state_dict()
    assert torch.equal(torch.rand(1), expected), 'the random numbers of others stay'
    second = load_network('conv2former_t', options=TINY).backbone.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_wrong_requests(photo: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out.png'
    with pytest.raises(FileNotFoundError, match=r'no image absent\.jpg'):
        draw_features('deit_t', 'absent.jpg', out)
    with pytest.raises(ValueError, match=r"unknown backbone 'conv2former'; .*Did you mean .*conv2former_"):
        draw_features('conv2former', photo, out)
    with pytest.raises(ValueError, match=r'ViT has no option windows; it has arch, .*window_size'):
        draw_features('deit_t', photo, out, options=dict(windows=3))
    with pytest.raises(ValueError, match='needs at least 32x32'):
        draw_features('coatnet_0', photo, out, size=(31, 64))
    (tmp_path / 'no_model.py').write_text('train_cfg = None')
    with pytest.raises(ValueError, match=r'no_model\.py has no model\.backbone'):
        draw_features(str(tmp_path / 'no_model.py'), photo, out)
    assert not out.exists()
