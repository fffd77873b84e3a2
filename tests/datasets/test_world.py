"""Drawn images are a function of their place, have the class that they are labelled with, and vary in all else."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from hybrid_backbones.datasets import world
from hybrid_backbones.datasets.world import ARRANGEMENTS, CLASSES, OUTLINES, TEXTURES, ShapesWorld, draw_world

SIZE = 64


def test_an_image_depends_on_seed_split_and_index_alone():
    first = draw_world(SIZE, 3, 'train', 1000)
    np.random.seed(5)  # noqa: NPY002
    again = draw_world(SIZE, 3, 'train', 1000)
    assert np.array_equal(first.image, again.image) and np.array_equal(first.labels, again.labels)
    for other in [(4, 'train', 1000), (3, 'val', 1000), (3, 'train', 1000 + len(CLASSES))]:
        assert np.abs(first.image.astype(int) - draw_world(SIZE, *other).image).mean() > 10


def test_every_class_is_drawn_once_in_a_round():
    labels = [ShapesWorld(10**9, SIZE)[index]['labels'] for index in range(10**6, 10**6 + len(CLASSES))]
    assert Counter(labels) == Counter(range(len(CLASSES)))
    assert len(set(CLASSES)) == len(OUTLINES) * len(TEXTURES) * len(ARRANGEMENTS) == len(CLASSES)


def test_the_label_map_has_the_class_where_the_objects_are():
    for label in range(0, len(CLASSES), 5):
        drawn = draw_world(SIZE, 0, 'val', label)
        assert set(np.unique(drawn.labels)) == {0, label + 1}
        # Its objects are seen: colours inside differ from those outside, or from each other.
        assert 0.01 < (drawn.labels > 0).mean() < 0.6


def test_items_are_batches_of_a_classifier():
    item = ShapesWorld(10, SIZE)[7]
    assert item['inputs'].shape == (3, SIZE, SIZE) and str(item['inputs'].dtype) == 'torch.uint8'
    assert np.array_equal(item['inputs'].permute(1, 2, 0).numpy(), draw_world(SIZE, 0, 'train', 7).image)


def test_outlines_differ_under_rotation():
    """No outline covers another, whatever their turns."""
    masks = {
        outline: [world._fill(outline, (32, 32), 20, turn, 1, SIZE) > 127 for turn in np.linspace(0, 6.2, 24)]
        for outline in OUTLINES
    }
    for one, other in combinations(OUTLINES, 2):
        overlap = max((masks[one][0] & mask).sum() / (masks[one][0] | mask).sum() for mask in masks[other])
        assert overlap < 0.9, (one, other)


def test_textures_differ():
    """In how often they change from pixel to pixel along a row."""
    random = np.random.RandomState(0)
    patterns = {kind: [world._texture(kind, 112, random) for _ in range(32)] for kind in TEXTURES}
    assert all(pattern.min() >= 0 and pattern.max() <= 1 for each in patterns.values() for pattern in each)
    changes = {kind: np.mean([np.abs(np.diff(p)).mean() for p in each]) for kind, each in patterns.items()}
    assert changes['plain'] == 0 < changes['clouds'] < changes['stripes'] < changes['checks']


def test_arrangements_have_their_number_of_objects():
    random = np.random.RandomState(0)
    counts = {kind: {len(world._places(kind, random)) for _ in range(50)} for kind in ARRANGEMENTS}
    assert counts == dict(single={1}, row={3, 4}, ring={5, 6, 7}, nested={2})


@pytest.mark.parametrize('wrong', [dict(num_images=0), dict(size=16), dict(seed=-1), dict(split='test')])
def test_arguments_out_of_range(wrong):
    with pytest.raises(ValueError, match=r'shapes-world: need .* got'):
        ShapesWorld(**dict(num_images=4) | wrong)
