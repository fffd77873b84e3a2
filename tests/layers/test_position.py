"""Tables of relative positions at other sizes, and what is kept of them."""

import copy

import pytest
import torch
from torch import nn

from hybrid_backbones.layers.position import SizeCache, resize_line, resize_positions, resize_table, square_side


def test_a_table_of_the_size_at_hand_is_itself():
    table = torch.randn(2, 5, 7)
    assert resize_table(table, 5, 7) is table


@pytest.mark.parametrize('size', [(9, 15), (3, 5), (1, 1), (7, 5)])
def test_resizing_keeps_the_centre_and_linear_functions(size):
    rows, columns = torch.meshgrid(torch.arange(-4.0, 5), torch.arange(-6.0, 7), indexing='ij')
    resized = resize_table(torch.stack([rows, columns, 2 * rows - columns]), *size)
    assert resized.shape == (3, *size)
    torch.testing.assert_close(resized[:, size[0] // 2, size[1] // 2], torch.zeros(3))
    torch.testing.assert_close(resized[2], 2 * resized[0] - resized[1])
    torch.testing.assert_close(resized[0], -resized[0].flip(0))


@pytest.mark.parametrize('length', [27, 7, 1, 15])
def test_resizing_along_one_axis_keeps_the_centre_and_linear_functions(length):
    line = torch.arange(-7.0, 8)
    resized = resize_line(torch.stack([line, 3 * line], 1), length)
    assert resized.shape == (length, 2)
    torch.testing.assert_close(resized[length // 2], torch.zeros(2))
    torch.testing.assert_close(resized[:, 1], 3 * resized[:, 0])
    torch.testing.assert_close(resized, -resized.flip(0))
    inner = resized[:, 0].diff()[length // 7 : -(length // 7) or None]  # beyond the ends there is nothing to lean on
    torch.testing.assert_close(inner, torch.full_like(inner, 15 / length))


def test_a_line_of_the_length_at_hand_is_itself():
    line = torch.randn(5, 3)
    assert resize_line(line, 5) is line


class Counted:
    """A cache and how often it had to make something."""

    def __init__(self) -> None:
        self.table = nn.Parameter(torch.randn(2, 3, 3))
        self.cache = SizeCache().eval()
        self.made = 0

    def __call__(self, height: int, width: int) -> torch.Tensor:
        return self.cache(self.table, (height, width), lambda: self.make(height, width))

    def make(self, height: int, width: int) -> torch.Tensor:
        self.made += 1
        return resize_table(self.table, height, width)


@torch.no_grad()
def test_a_size_is_made_once_and_told_from_others_of_equal_area():
    counted = Counted()
    for _ in range(2):
        assert counted(5, 7).shape[1:] == (5, 7)
        assert counted(7, 5).shape[1:] == (7, 5)
    assert counted.made == 2


@torch.no_grad()
def test_few_sizes_are_kept_the_latest_ones():
    counted = Counted()
    for width in range(100):
        counted(5, width + 1)
        counted(3, 5)
    assert counted.made == 101
    assert len(counted.cache._kept) < 10


def test_a_changed_parameter_is_seen():
    counted = Counted()
    with torch.no_grad():
        before = counted(5, 5)
        counted.table.mul_(2)
        torch.testing.assert_close(counted(5, 5), 2 * before)


def test_weights_swapped_behind_the_version_counter_are_seen_after_eval():
    counted = Counted()
    with torch.no_grad():
        before = counted(5, 5)
        counted.table.data.mul_(2)  # as MMEngine's EMAHook does
        counted.cache.eval()
        torch.testing.assert_close(counted(5, 5), 2 * before)


def test_gradients_reach_the_parameter_after_inference_filled_the_cache():
    counted = Counted()
    with torch.inference_mode():
        counted(5, 5)
    counted(5, 5).sum().backward()
    torch.testing.assert_close(counted.table.grad.sum(), torch.tensor(50.0))


def test_what_inference_kept_serves_a_layer_that_trains():
    counted = Counted()
    counted.table.requires_grad_(False)
    with torch.inference_mode():
        counted(5, 5)
    weight = torch.ones(2, 5, 5, requires_grad=True)
    (counted(5, 5) * weight).sum().backward()
    torch.testing.assert_close(weight.grad, counted(5, 5))
    assert counted.made == 1


def test_copies_start_empty():
    counted = Counted()
    with torch.no_grad():
        counted(5, 5)
    assert not copy.deepcopy(counted.cache)._kept
    assert not counted.cache.state_dict()


@pytest.mark.parametrize('prefix', [0, 1, 2])
@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('size', [(8, 18), (5, 3), (1, 1)])
def test_positions_are_resized_as_an_image_and_prefix_tokens_left_alone(size, align_corners, prefix):
    table = torch.randn(1, prefix + 36, 5)
    resized = resize_positions(table, (6, 6), size, prefix, align_corners)
    assert resized.shape == (1, prefix + size[0] * size[1], 5)
    assert torch.equal(resized[:, :prefix], table[:, :prefix])
    image = table[0, prefix:].t().reshape(1, 5, 6, 6)
    expected = nn.functional.interpolate(image, size, mode='bicubic', align_corners=align_corners)
    assert torch.equal(resized[0, prefix:].t().reshape(expected.shape), expected)
    if align_corners and size[0] > 1:
        corners = resized[0, prefix:].unflatten(0, size)[[0, 0, -1, -1], [0, -1, 0, -1]]
        torch.testing.assert_close(corners, table[0, prefix:].unflatten(0, (6, 6))[[0, 0, -1, -1], [0, -1, 0, -1]])
    assert resize_positions(table, (6, 6), (6, 6), prefix, align_corners) is table


def test_only_squares_have_a_side():
    assert [square_side(n) for n in (1, 4, 196, 0, -1, 195)] == [1, 2, 14, None, None, None]
