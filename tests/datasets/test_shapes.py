"""The embedded dataset: the same for everybody, whole on disk, and read by COCO's API as it was drawn."""

import hashlib
import json
import multiprocessing
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hybrid_backbones.datasets.masks import encode_mask, encode_runs, trace_borders
from hybrid_backbones.datasets.scenes import CLASSES, draw_scene
from hybrid_backbones.datasets.shapes import SEGMENTATION_CLASSES, default_root, ensure_shapes

SMALL = dict(num_train=40, num_val=12, size=96)


@pytest.fixture(scope='module')
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_shapes(tmp_path_factory.mktemp('data') / 'small', **SMALL)


@pytest.fixture(scope='module')
def coco(small: Path) -> COCO:
    return COCO(small / 'annotations/instances_train2017.json')


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_content_is_pinned() -> None:
    """Label maps are integers all the way: this hash holds for every platform and NumPy."""
    digest = hashlib.sha256()
    for index in range(48):
        digest.update(draw_scene(160, 0, 0, index).labels.tobytes())
    assert digest.hexdigest() == 'd80e938df5453645ba46d664a8032e90ed96b81ba1a276df156ef407061d9ea1'


def test_same_seed_same_bytes_other_seed_other_scenes(small: Path, tmp_path: Path) -> None:
    assert contents(ensure_shapes(tmp_path / 'again', **SMALL)) == contents(small)
    other = contents(ensure_shapes(tmp_path / 'other', **SMALL, seed=1))
    pictures = [name for name in other if name.endswith(('.jpg', '.png'))]
    assert all(other[name] != content for name, content in contents(small).items() if name in pictures)


def test_splits_differ(small: Path) -> None:
    train = {path.read_bytes() for path in (small / 'images/training').iterdir()}
    val = {path.read_bytes() for path in (small / 'images/validation').iterdir()}
    assert (len(train), len(val)) == (40, 12)
    assert not train & val


@pytest.mark.parametrize('damage', ['missing', 'short', 'altered', 'manifest short', 'manifest missing'])
def test_damage_is_repaired(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HYBRID_BACKBONES_CACHE', str(tmp_path))
    folder = ensure_shapes(num_train=2, num_val=1, size=64)
    assert folder == default_root() == tmp_path / 'shapes'
    whole = contents(folder)
    image = folder / 'train2017/000000000002.jpg'
    if damage == 'missing':
        image.unlink()
    elif damage == 'short':
        image.write_bytes(image.read_bytes()[:100])
    elif damage == 'altered':
        image.write_bytes(image.read_bytes()[:-3] + b'???')
    elif damage == 'manifest short':
        (folder / 'shapes.json').write_text('{"options": {"vers')
    else:
        (folder / 'shapes.json').unlink()
    assert contents(folder) != whole
    ensure_shapes(num_train=2, num_val=1, size=64)
    assert contents(folder) == whole


def test_whole_dataset_is_not_written_again(small: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in small.rglob('*')}
    ensure_shapes(small, **SMALL)
    assert {path: path.stat().st_mtime_ns for path in small.rglob('*')} == before


def test_killed_writer_leaves_a_folder_that_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = contents(ensure_shapes(tmp_path / 'whole', num_train=2, num_val=1, size=64))
    written = []

    def die_after_three(path: Path, target: Path) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(target)
        path.rename(target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'replace', die_after_three)
        with pytest.raises(KeyboardInterrupt):
            ensure_shapes(tmp_path / 'cut', num_train=2, num_val=1, size=64)
    assert len(contents(tmp_path / 'cut')) == 3
    assert contents(ensure_shapes(tmp_path / 'cut', num_train=2, num_val=1, size=64)) == whole


def test_fewer_images_leave_no_old_ones(tmp_path: Path) -> None:
    ensure_shapes(tmp_path / 'a', num_train=3, num_val=2, size=64)
    folder = ensure_shapes(tmp_path / 'a', num_train=2, num_val=1, size=64)
    assert contents(folder) == contents(ensure_shapes(tmp_path / 'b', num_train=2, num_val=1, size=64))


def test_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations/instances_train2017.json').write_text('mine')
    with pytest.raises(FileExistsError, match=r'not empty.*new or empty folder'):
        ensure_shapes(tmp_path)
    assert contents(tmp_path) == {'annotations/instances_train2017.json': b'mine'}


@pytest.mark.parametrize('options', [dict(num_train=0), dict(size=32), dict(seed=-1)])
def test_bad_options_are_named(options: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"'{next(iter(options))}': {next(iter(options.values()))}"):
        ensure_shapes(tmp_path / 'new', **options)
    assert not (tmp_path / 'new').exists()


def _write_small(folder: Path) -> None:
    ensure_shapes(folder, num_train=6, num_val=2, size=64)


def test_concurrent_writers_agree(tmp_path: Path) -> None:
    context = multiprocessing.get_context('fork')
    writers = [context.Process(target=_write_small, args=(tmp_path / 'shared',)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    _write_small(tmp_path / 'alone')
    assert contents(tmp_path / 'shared') == contents(tmp_path / 'alone')


def test_annotations_give_back_the_masks_drawn(coco: COCO) -> None:
    notations = Counter()
    for image_id in coco.getImgIds():
        scene = draw_scene(SMALL['size'], 0, 0, image_id - 1)
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image_id))
        assert len(annotations) == len(scene.instances)
        for annotation, instance in zip(annotations, scene.instances, strict=True):
            mask = coco.annToMask(annotation).astype(bool)
            assert np.array_equal(mask, instance.mask)
            x, y, width, height = annotation['bbox']
            box = np.zeros_like(mask)
            box[y : y + height, x : x + width] = True
            assert box[mask].all()
            assert mask[y].any() and mask[y + height - 1].any() and mask[:, x].any() and mask[:, x + width - 1].any()
            assert annotation['area'] == mask.sum()
            assert CLASSES[instance.label] == coco.cats[annotation['category_id']]['name']
            notations[type(annotation['segmentation']), annotation['iscrowd']] += 1
    assert set(notations) == {(list, 0), (dict, 0), (dict, 1)}, 'polygons, rings with a hole, crowds'


def test_label_maps_agree_with_instances(small: Path, coco: COCO) -> None:
    seen = set()
    for image_id, image in coco.imgs.items():
        stem = Path(image['file_name']).stem
        labels = cv2.imread(str(small / f'annotations/training/{stem}.png'), cv2.IMREAD_UNCHANGED)
        assert labels.dtype == np.uint8 and labels.shape == (image['height'], image['width'])
        objects = np.zeros_like(labels)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image_id)):
            mask = coco.annToMask(annotation).astype(bool)
            assert not objects[mask].any(), 'what is seen belongs to one object only'
            objects[mask] = annotation['category_id']
        shapes = (labels > 0) & (labels <= len(CLASSES))
        assert np.array_equal(np.where(shapes, labels, 0), objects)
        seen |= set(np.unique(labels))
        photos = [(small / folder / f'{stem}.jpg').read_bytes() for folder in ('train2017', 'images/training')]
        assert photos[0] == photos[1]
    assert seen == set(range(len(SEGMENTATION_CLASSES) + 1))


def test_default_size_holds_every_kind_of_object() -> None:
    """Small, medium and large by COCO's areas, all classes, overlaps, a crowd and an empty image, in either split."""
    for split in (0, 1):
        scenes = [draw_scene(160, 0, split, index) for index in range(64)]
        instances = [instance for scene in scenes for instance in scene.instances]
        areas = np.array([instance.mask.sum() for instance in instances])
        assert np.histogram(areas, [0, 32**2, 96**2, 160**2])[0].min() >= 5
        assert {instance.label for instance in instances} == set(range(len(CLASSES)))
        assert sum(instance.crowd for instance in instances) >= 3
        assert sum(not scene.instances for scene in scenes) == 2
        touching = 0
        for scene in scenes:
            grown = [cv2.dilate(i.mask.astype(np.uint8), np.ones((3, 3))) for i in scene.instances]
            touching += len(grown) > 0 and np.sum(grown, axis=0).max() > 1
        assert touching >= 20, 'scenes in which shapes overlap'


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_truth_scores_one_against_itself(coco: COCO, kind: str) -> None:
    results = [
        dict(
            image_id=a['image_id'], category_id=a['category_id'], bbox=a['bbox'], segmentation=coco.annToRLE(a), score=1
        )
        for a in coco.anns.values()
        if not a['iscrowd']
    ]
    scores = COCOeval(coco, coco.loadRes(results), kind)
    scores.evaluate()
    scores.accumulate()
    scores.summarize()
    assert scores.stats[0] == pytest.approx(1)


def test_masks_survive_both_notations() -> None:
    random = np.random.RandomState(0)
    for _ in range(200):
        mask = random.random_sample((random.randint(1, 20), random.randint(1, 20))) < random.random_sample()
        runs = coco_mask.frPyObjects(encode_runs(mask), *mask.shape)
        assert np.array_equal(coco_mask.decode(runs), mask)
        notation = encode_mask(mask)
        if isinstance(notation, list) and notation:
            polygons = coco_mask.frPyObjects(notation, *mask.shape)
            assert np.array_equal(coco_mask.decode(coco_mask.merge(polygons)), mask)


def test_border_of_a_frame_and_of_pixels_that_touch_at_a_corner() -> None:
    frame = np.ones((3, 3), bool)
    frame[1, 1] = False
    assert trace_borders(frame) == [[(0, 0), (3, 0), (3, 3), (0, 3)], [(1, 1), (1, 2), (2, 2), (2, 1)]]
    assert trace_borders(np.eye(2, dtype=bool)) == [
        [(0, 0), (1, 0), (1, 1), (0, 1)],
        [(1, 1), (2, 1), (2, 2), (1, 2)],
    ]
    assert json.dumps(encode_mask(np.eye(2, dtype=bool))) == '[[0, 0, 1, 0, 1, 1, 0, 1], [1, 1, 2, 1, 2, 2, 1, 2]]'
