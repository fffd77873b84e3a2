"""Effective receptive fields of networks whose own is known."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from visualize.pictures import pixels

from hybrid_backbones.visualize import draw_receptive_fields
from hybrid_backbones.visualize.receptive_field import Field, receptive_fields, smallest_square


class Stack(nn.Sequential):
    """Convolutions of known size, as a network of one map."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (super().forward(x),)


def convs(count: int, kernel_size: int = 3, stride: int = 1) -> Stack:
    padding = (kernel_size - 1) // 2
    return Stack(*(nn.Conv2d(3, 3, kernel_size, stride, padding) for _ in range(count))).double()


@pytest.mark.parametrize('count', [1, 2, 5])
@pytest.mark.parametrize('size', [(33, 33), (32, 47)])
def test_a_stack_of_convolutions(count: int, size: tuple[int, int]) -> None:
    (field,) = receptive_fields(convs(count), size, samples=2)
    side, top, left = smallest_square(field, share=1)
    assert side == 2 * count + 1
    assert (top, left) == (size[0] // 2 - count, size[1] // 2 - count)
    assert smallest_square(field, share=0.5)[0] < side or count == 1


@pytest.mark.parametrize(('kernel_size', 'stride', 'count', 'side'), [(4, 4, 1, 4), (3, 2, 3, 15), (7, 2, 1, 7)])
def test_strided_convolutions(kernel_size: int, stride: int, count: int, side: int) -> None:
    network = convs(count, kernel_size, stride)
    if kernel_size == 4:
        network[0].padding = (0, 0)
    (field,) = receptive_fields(network, (64, 64), samples=1)
    assert smallest_square(field, share=1)[0] == side
    assert field.stride == stride**count


def test_attention_reaches_everything() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return (x.mean((2, 3), keepdim=True).expand_as(x) * self.weight,)

    (field,) = receptive_fields(Mean(), (20, 40), samples=1)
    assert field.values.std() < 1e-6 * field.values.mean()
    assert 36 <= smallest_square(field)[0] <= 42, '95 % of 40 columns, as the square may not leave the centre'


def test_channels_that_sum_to_a_constant_do_not_hide_the_field() -> None:
    """Behind a LayerNorm, the gradient of the sum of all channels is zero."""

    network = Stack(nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(1, 4)).double()
    (field,) = receptive_fields(network, (1, 1), samples=4)
    assert field.values.max() > 1e-3


def test_the_square_holds_its_share() -> None:
    values = torch.zeros(9, 9)
    values[2:7, 2:7] = 10 / 24
    values[4, 4] = 90
    field = Field(values.double(), (4.0, 4.0), 1.0)
    assert smallest_square(field, 0.9) == (1, 4, 4)
    assert smallest_square(field, 0.96)[0] == 4, '15 of 24 neighbours, half a pixel aside'
    assert smallest_square(field, 0.97)[0] == 5
    assert smallest_square(field, 1.0) == (5, 2, 2)


def test_networks_are_drawn_in_rows(tmp_path: Path) -> None:
    names = ['tiny_moat_0', 'deit_t']
    options = dict(pyramid='multi_depth', position_tables=False)
    one = pixels(draw_receptive_fields(names[:1], tmp_path / '1.png', (64, 96), 1))
    two = pixels(draw_receptive_fields(names, tmp_path / '2.png', (64, 96), 1, options))
    assert one.shape[1] == two.shape[1] and 1.4 < two.shape[0] / one.shape[0] < 2.1
    bright = (two.astype(int) > [240, 200, 150]).all(-1) & (two.astype(int) < [255, 255, 220]).all(-1)
    assert bright.any(), 'the largest gradient, at the upper end of the colours'


def test_wrong_requests(tmp_path: Path) -> None:
    out = tmp_path / 'a.png'
    with pytest.raises(ValueError, match=r"unknown backbone 'deit_x'; choose one of .*Did you mean .*deit_"):
        draw_receptive_fields(['deit_x'], out)
    with pytest.raises(ValueError, match=r'none of deit_t, cvt_13 has an option kernel'):
        draw_receptive_fields(['deit_t', 'cvt_13'], out, options=dict(kernel=3))
    with pytest.raises(ValueError, match='0 samples'):
        draw_receptive_fields(['deit_t'], out, samples=0)
    with pytest.raises(FileNotFoundError, match=r'no config absent\.py'):
        draw_receptive_fields(['absent.py'], out)
    assert not list(tmp_path.iterdir())
