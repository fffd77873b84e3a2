"""Types of errors, their cost, and the files that an analysis writes."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hybrid_backbones.analysis.detection import analyze_detections
from hybrid_backbones.analysis.segmentation import analyze_label_maps
from hybrid_backbones.analysis.tide import match


def box(x: float, size: float = 20.0) -> list[float]:
    return [x, 10.0, size, size]


# One image with objects of two classes at x = 0, 100, 200, 300 and a crowd at 400.
OBJECTS = [(1, box(0)), (1, box(100)), (2, box(200)), (2, box(300))]
FOUND = {
    '': (1, box(0), 0.9),
    'duplicate': (1, box(1), 0.8),
    'box': (1, box(110), 0.7),
    'class': (1, box(200), 0.6),
    'class and box': (1, box(310), 0.55),
    'background': (2, box(600), 0.5),
    'in the crowd': (1, box(405), 0.45),
}


@pytest.fixture
def truth(tmp_path):
    from pycocotools.coco import COCO

    annotations = [
        dict(id=i, image_id=1, category_id=category, bbox=place, area=place[2] * place[3], iscrowd=0)
        for i, (category, place) in enumerate(OBJECTS, start=1)
    ]
    annotations.append(dict(id=9, image_id=1, category_id=1, bbox=[400.0, 0.0, 90.0, 60.0], area=5400.0, iscrowd=1))
    categories = [dict(id=1, name='cat'), dict(id=2, name='dog')]
    images = [dict(id=1, file_name='a.jpg', width=700, height=60)]
    (tmp_path / 'truth.json').write_text(
        json.dumps(dict(images=images, annotations=annotations, categories=categories))
    )
    Image.new('RGB', (700, 60)).save(tmp_path / 'a.jpg')
    return COCO(str(tmp_path / 'truth.json'))


def results(*kinds: str) -> list[dict]:
    found = [FOUND[kind] for kind in kinds or FOUND]
    return [dict(image_id=1, category_id=category, bbox=place, score=score) for category, place, score in found]


def test_types(truth):
    matching = match(truth, results())
    assert [d.error for d in matching.detections] == [kind for kind in FOUND if kind != 'in the crowd']
    # The second and third object would be right but for one error; the fourth is missed.
    assert matching.missed == {4}


def test_costs(truth):
    matching = match(truth, results('', 'box', 'background'))
    # cat: one of two right, at full precision: recalls 0 to 0.5 of 101; dog: none.
    assert matching.average_precision() == pytest.approx(51 / 101 / 2)
    costs = matching.costs()
    assert costs['box'] == (1, pytest.approx(0.5 - 51 / 101 / 2))
    assert costs['missed'] == (2, pytest.approx(51 / 101 - 51 / 101 / 2))
    assert costs['background'] == (1, 0)
    assert costs['duplicate'] == (0, 0)


def test_class_errors_are_corrected_once(truth):
    twice = [*results('class'), dict(results('class')[0], score=0.3)]
    matching = match(truth, twice)
    assert [d.error for d in matching.detections] == ['class', 'class']
    assert matching.costs()['class'] == (2, pytest.approx(51 / 101 / 2))


def test_average_precision_is_that_of_coco(truth):
    from pycocotools.cocoeval import COCOeval

    found = results()
    evaluation = COCOeval(truth, truth.loadRes(found), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    expected = evaluation.eval['precision'][0, :, :, 0, -1].mean()
    assert match(truth, found).average_precision() == pytest.approx(expected)


def test_files(truth, tmp_path):
    (tmp_path / 'found.json').write_text(json.dumps(results()))
    written = analyze_detections(tmp_path / 'truth.json', tmp_path / 'found.json', tmp_path, tmp_path / 'out')
    assert {path.name for path in written} == {
        *('classes.csv', 'errors.csv', 'sizes.csv', 'sizes.png', 'confusion.csv', 'confusion.png'),
        *('false_positives.png', 'misses.png'),
    }
    confusion = pd.read_csv(tmp_path / 'out' / 'confusion.csv', index_col=0)
    assert confusion.loc['dog'].to_dict() == {'cat': 1, 'dog': 0, 'background': 1}
    assert confusion.loc['cat'].to_dict() == {'cat': 1, 'dog': 0, 'background': 1}
    sizes = pd.read_csv(tmp_path / 'out' / 'sizes.csv', index_col=0)
    assert (sizes.objects.sum(), sizes.found.sum()) == (4, 1)
    assert sizes.index[0] == '0-16' and sizes.index[-1] == '512 and more'


def test_an_object_is_counted_once_under_its_most_confident_detection(truth, tmp_path):
    """A row of the confusion matrix sums to the objects of its class, however many detections cover one of them."""
    found = [
        *results('', 'class'),
        dict(results('class')[0], score=0.35),
        dict(results('')[0], category_id=2, score=0.95),
    ]
    (tmp_path / 'found.json').write_text(json.dumps(found))
    analyze_detections(tmp_path / 'truth.json', tmp_path / 'found.json', tmp_path, tmp_path / 'out')
    confusion = pd.read_csv(tmp_path / 'out' / 'confusion.csv', index_col=0)
    assert confusion.to_numpy().tolist() == [[0, 1, 1], [1, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize('found', [[], results('background')])
def test_detectors_that_find_nothing(truth, tmp_path, found):
    (tmp_path / 'found.json').write_text(json.dumps(found))
    analyze_detections(tmp_path / 'truth.json', tmp_path / 'found.json', tmp_path, tmp_path / 'out')
    errors = pd.read_csv(tmp_path / 'out' / 'errors.csv', index_col=0)
    assert errors.number['missed'] == 4


def test_label_maps(tmp_path):
    truth, prediction = np.array([[0, 0, 1], [1, 255, 1]]), np.array([[0, 1, 1], [1, 0, 0]])
    Image.new('RGB', (3, 2)).save(tmp_path / 'a.png')
    Image.new('RGB', (3, 2)).save(tmp_path / 'b.png')
    samples = [(tmp_path / 'b.png', truth, truth), (tmp_path / 'a.png', truth, prediction)]
    written = analyze_label_maps(samples, ['sky', 'road', 'car'], [(0, 0, 255), (99, 99, 99)], tmp_path / 'out')
    assert {path.name for path in written} == {
        *('classes.csv', 'confusion.csv', 'confusion.png', 'images.csv', 'worst.png')
    }
    table = pd.read_csv(tmp_path / 'out' / 'classes.csv', index_col=0)
    assert table.IoU[:2].tolist() == [0.6, 0.7143] and np.isnan(table.IoU['car'])
    assert table.pixels.tolist() == [4, 6, 0]
    shares = pd.read_csv(tmp_path / 'out' / 'images.csv', index_col=0)
    assert shares['wrong pixels'].to_dict() == {str(tmp_path / 'a.png'): 0.4, str(tmp_path / 'b.png'): 0.0}
