"""Ten drawn images, and the same annotations of them in each layout that annotation tools export."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ('cat', 'dog')
WIDTH, HEIGHT = 80, 60
NAMES = [f'bild {i} ä' for i in range(10)]  # blanks and other letters than ASCII's
COLOURS = [(200, 30, 30), (30, 60, 200)]


def boxes(number: int) -> list[tuple[int, tuple[int, int, int, int]]]:
    """Class, and x, y, width and height, of the objects of an image: a cat in each, a dog in every second."""
    cat = 0, (4 + 2 * number, 6, 20, 24)
    dog = 1, (50, 20 + number, 24, 18)
    return [cat, dog] if number % 2 else [cat]


def write_image(path: Path, number: int) -> None:
    """A textured image, unlike those of other numbers, with its objects in colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(number).integers(0, 255, (6, 8, 3), np.uint8)
    image = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    for c, (x, y, w, h) in boxes(number):
        image.paste(COLOURS[c], (x, y, x + w, y + h))
    image.save(path, quality=95)


def outline(box: tuple[int, int, int, int]) -> list[int]:
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')


def coco_content(numbers: range, outlines: bool = True) -> dict:
    """An annotation file with a superclass that nothing is of, as Roboflow writes it."""
    images = [dict(id=i, file_name=f'{NAMES[i]}.jpg', width=WIDTH, height=HEIGHT) for i in numbers]
    objects = []
    for i in numbers:
        for c, box in boxes(i):
            record = dict(id=len(objects), image_id=i, category_id=c + 1, bbox=box, area=box[2] * box[3], iscrowd=0)
            objects.append(record | dict(segmentation=[outline(box)]) if outlines else record)
    categories = [dict(id=0, name='animals', supercategory='none')]
    categories += [dict(id=c + 1, name=name, supercategory='animals') for c, name in enumerate(CLASSES)]
    return dict(images=images, annotations=objects, categories=categories)


def write_coco(root: Path) -> None:
    """CVAT's: annotations/instances_default.json, images/."""
    for i, name in enumerate(NAMES):
        write_image(root / 'images' / f'{name}.jpg', i)
    write_text(root / 'annotations' / 'instances_default.json', json.dumps(coco_content(range(10))))


def write_roboflow_coco(root: Path) -> None:
    """Roboflow's: a folder for each split, with _annotations.coco.json among its images."""
    for split, numbers in dict(train=range(7), valid=range(7, 9), test=range(9, 10)).items():
        for i in numbers:
            write_image(root / split / f'{NAMES[i]}.jpg', i)
        write_text(root / split / '_annotations.coco.json', json.dumps(coco_content(numbers)))


def yolo_line(c: int, box: tuple[int, int, int, int]) -> str:
    x, y, w, h = box
    return f'{c} {(x + w / 2) / WIDTH:.6f} {(y + h / 2) / HEIGHT:.6f} {w / WIDTH:.6f} {h / HEIGHT:.6f}'


def polygon_line(c: int, box: tuple[int, int, int, int]) -> str:
    return ' '.join([str(c), *(f'{v / (WIDTH, HEIGHT)[i % 2]:.6f}' for i, v in enumerate(outline(box)))])


def write_yolo(root: Path, line: Callable[..., str] = yolo_line) -> None:
    """Ultralytics': images/, labels/ and data.yaml with splits by folder."""
    for i, name in enumerate(NAMES):
        split = 'train' if i < 8 else 'val'
        write_image(root / 'images' / split / f'{name}.jpg', i)
        write_text(root / 'labels' / split / f'{name}.txt', '\n'.join(line(*item) for item in boxes(i)) + '\n')
    write_text(root / 'data.yaml', 'train: ../images/train\nval: images/val\nnames: {0: cat, 1: dog}\n')


def write_darknet(root: Path) -> None:
    """CVAT's "YOLO 1.1": labels beside the images, obj.names."""
    for i, name in enumerate(NAMES):
        write_image(root / 'obj_train_data' / f'{name}.jpg', i)
        write_text(root / 'obj_train_data' / f'{name}.txt', '\n'.join(yolo_line(*item) for item in boxes(i)))
    write_text(root / 'obj.names', 'cat\ndog\n')
    write_text(root / 'train.txt', '\n'.join(f'data/obj_train_data/{name}.jpg' for name in NAMES))


def voc_object(c: int, box: tuple[int, int, int, int]) -> str:
    x, y, w, h = box
    corners = f'<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w + 1}</xmax><ymax>{y + h + 1}</ymax>'
    return f'<object><name>{CLASSES[c]}</name><difficult>0</difficult><bndbox>{corners}</bndbox></object>'


def write_voc(root: Path) -> None:
    for i, name in enumerate(NAMES):
        write_image(root / 'JPEGImages' / f'{name}.jpg', i)
        objects = ''.join(voc_object(*item) for item in boxes(i))
        text = f'<annotation><filename>{name}.jpg</filename>{objects}</annotation>'
        write_text(root / 'Annotations' / f'{name}.xml', text)


def write_cvat(root: Path) -> None:
    images = []
    for i, name in enumerate(NAMES):
        write_image(root / 'images' / f'{name}.jpg', i)
        shapes = []
        for c, (x, y, w, h) in boxes(i):
            points = f'{x},{y};{x + w},{y};{x + w},{y + h};{x},{y + h}'
            shapes.append(f'<polygon label="{CLASSES[c]}" points="{points}"/>')
        images.append(f'<image name="{name}.jpg">{"".join(shapes)}</image>')
    labels = ''.join(f'<label><name>{name}</name></label>' for name in CLASSES)
    meta = f'<meta><job><labels>{labels}</labels></job></meta>'
    content = f'<annotations><version>1.1</version>{meta}{"".join(images)}</annotations>'
    write_text(root / 'annotations.xml', f'<?xml version="1.0" encoding="utf-8"?>\n{content}')


def label_map(number: int) -> np.ndarray:
    """(H, W) 0 background, 1 cat, 2 dog."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    for c, (x, y, w, h) in boxes(number):
        labels[y : y + h, x : x + w] = c + 1
    return labels


def write_masks(root: Path, encode: Callable[[np.ndarray], np.ndarray] = lambda labels: labels) -> None:
    """images/ and masks/, without splits."""
    for i, name in enumerate(NAMES):
        write_image(root / 'images' / f'{name}.jpg', i)
        (root / 'masks').mkdir(exist_ok=True)
        Image.fromarray(encode(label_map(i))).save(root / 'masks' / f'{name}.png')


OBJECT_EXPORTS = dict(
    coco=write_coco,
    roboflow_coco=write_roboflow_coco,
    yolo=write_yolo,
    darknet=write_darknet,
    voc=write_voc,
    cvat=write_cvat,
)
