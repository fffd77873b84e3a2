"""`table_size` is the same option in every family that stores positions: parsed, checked and resized on loading."""

import logging

import pytest
import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn
from torch.nn import functional as F

from hybrid_backbones import create_backbone, create_classifier
from hybrid_backbones.backbones.factory import find_backbone
from hybrid_backbones.checkpoints import CheckpointError, load_pretrained

NAMES = ('deit_t', 'vitc_1gf', 'convit_t', 'ceit_t', 'coatnet_0', 'botnet_50')
# ViT's tiny architecture has ViT_C's stem.
ARCHS = dict(deit_t=dict(depth=4, dim=16, heads=2, mlp_ratio=2, stem=()))
SIZES = [(64, 96), (128, (64, 96)), ((64, 96), 128), ((96, 64), (96, 128))]


def build(name: str, **options) -> nn.Module:
    torch.manual_seed(1)
    network = create_backbone(name, arch=ARCHS.get(name, find_backbone(name)[0].tiny_arch), **options)
    for parameter in network.parameters():
        parameter.data.uniform_(-0.5, 0.5)
    return network.eval()


def sides(table_size: int | tuple[int, int]) -> tuple[int, int]:
    return (table_size, table_size) if isinstance(table_size, int) else table_size


@pytest.fixture
def log(caplog):
    """What goes to MMEngine's log."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, logger.name)
    yield caplog
    logger.removeHandler(caplog.handler)


def reference(
    key: str, table: Tensor, own: Tensor, given: tuple[int, int], wanted: tuple[int, int], name: str
) -> Tensor:
    """A table resized by torch's own interpolation."""
    if key == 'pos_embed':
        prefix = table.shape[1] - given[0] // 16 * (given[1] // 16)
        image = table[:, prefix:].unflatten(1, [side // 16 for side in given]).permute(0, 3, 1, 2)
        image = F.interpolate(
            image, [side // 16 for side in wanted], mode='bicubic', align_corners=name.startswith('vitc')
        )
        return torch.cat([table[:, :prefix], image.flatten(2).transpose(1, 2)], 1)
    if key.endswith(('rel_height', 'rel_width')):
        return F.interpolate(table.t()[None], len(own), mode='linear')[0].t()
    stride = 16 if key.startswith('stages.2') else 32
    offsets, new = ([2 * (side // stride) - 1 for side in size] for size in (given, wanted))
    image = table.unflatten(0, offsets).permute(2, 0, 1)[None]
    return F.interpolate(image, new, mode='bilinear')[0].flatten(1).t()


def is_table(key: str) -> bool:
    return key.endswith(('pos_embed', 'relative_position_bias_table', 'rel_height', 'rel_width'))


def can_be_resized(name: str, given: int | tuple[int, int]) -> bool:
    # The two tables of a BoTNet tell the height and width apart; one table has to be square.
    return isinstance(given, int) or name.startswith('botnet')


@pytest.mark.parametrize(('given', 'wanted'), SIZES)
@pytest.mark.parametrize('name', NAMES)
def test_a_file_of_another_table_size_is_resized_on_loading(name, given, wanted, tmp_path, log):
    learned, network = build(name, table_size=given), build(name, table_size=wanted)
    torch.save(learned.state_dict(), tmp_path / 'file.pth')
    if not can_be_resized(name, given):
        with pytest.raises(CheckpointError, match=r'grid is not square.*table_size=\(H, W\)'):
            load_pretrained(network, tmp_path / 'file.pth')
        return
    report = load_pretrained(network, tmp_path / 'file.pth')
    assert report.matched == report.total
    state, own = learned.state_dict(), network.state_dict()
    for key in filter(is_table, own):
        expected = reference(key, state[key], own[key], sides(given), sides(wanted), name)
        torch.testing.assert_close(own[key], expected)
    (h, w), (height, width) = sides(given), sides(wanted)
    (line,) = (line for line in log.messages if 'resized' in line)
    assert f'for images of {h}x{w} pixels, are resized to {height}x{width}; table_size={given} keeps' in line


@pytest.mark.parametrize('name', NAMES)
def test_loading_into_another_table_size_is_running_at_that_size(name, tmp_path):
    """A table resized once by the loader and once by the network."""
    learned, network = build(name, table_size=128), build(name, table_size=(64, 96))
    torch.save(learned.state_dict(), tmp_path / 'file.pth')
    load_pretrained(network, tmp_path / 'file.pth')
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        for ours, expected in zip(network(image), learned(image), strict=True):
            torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize('name', NAMES)
def test_tables_of_a_size_that_is_not_square_round_trip(name, tmp_path):
    network = build(name, table_size=[64, 96])
    torch.save(network.state_dict(), tmp_path / 'file.pth')
    again = build(name, table_size=(64, 96))
    nn.init.zeros_(next(parameter for key, parameter in again.named_parameters() if is_table(key)))
    assert load_pretrained(again, tmp_path / 'file.pth').initial == ()
    with torch.inference_mode():
        for size in ((64, 96), (96, 64), (97, 131)):
            image = torch.randn(1, 3, *size)
            assert all(torch.equal(a, b) for a, b in zip(network(image), again(image), strict=True))


@pytest.mark.parametrize('name', NAMES)
def test_a_classifier_takes_a_file_of_another_table_size(name, tmp_path):
    arch = dict(arch=find_backbone(name)[0].tiny_arch)
    torch.save(create_classifier(name, 5, **arch, table_size=128).state_dict(), tmp_path / 'file.pth')
    network = create_classifier(name, 5, checkpoint=tmp_path / 'file.pth', **arch, table_size=64)
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, 5)


@pytest.mark.parametrize(
    'table_size', [0, -32, 100, 224.0, '224', (64,), (64, 96, 32), (64, 100), (64, 0), (64, 96.0), True], ids=repr
)
@pytest.mark.parametrize('name', NAMES)
def test_a_table_size_that_is_none_is_an_error(name, table_size):
    multiple = 32 if name.startswith('coatnet') else 16
    with pytest.raises(
        ValueError, match=rf'table_size=.* of \w+: expected a positive multiple of {multiple} pixels'
    ) as e:
        build(name, table_size=table_size)
    assert f'table_size={table_size!r} of ' in str(e.value)
