"""Miniatures of the layouts of mmdet's and mmseg's dataset classes pass; what cannot be checked is said."""

import json
from pathlib import Path

import mmseg
import numpy as np
import pytest
from datasets.tiny_data import HEIGHT, WIDTH
from mmengine.config import Config
from PIL import Image

from hybrid_backbones.datasets.checks import DataError, check_data
from hybrid_backbones.datasets.checks.view import DataView
from hybrid_backbones.datasets.roots import set_data_root

SEGMENTATION = Path(mmseg.__file__).parent / '.mim' / 'configs' / '_base_' / 'datasets'


def write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_segmentation_miniature(dataset, names=('kitchen_0001', 'sub/kitchen_0002', 'kitchen_0003')) -> None:
    """Three images with label maps where the class of `dataset` looks for them."""
    built = dataset.built  # its suffixes may be fixed by the class
    num_classes, first = len(dataset.classes), int(getattr(built, 'reduce_zero_label', False))
    labels = np.full((HEIGHT, WIDTH), first, np.uint8)
    labels[10:30, 10:30] = first + num_classes - 1
    for name in names:
        for key, folder in dataset.folders.items():
            if key.startswith('img_path'):
                write_image(folder / f'{name}{built.img_suffix}', np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
            else:
                write_image(folder / f'{name}{built.seg_map_suffix}', labels)
    if dataset.ann_file is not None:
        dataset.ann_file.write_text('\ufeff' + '\n'.join(names), encoding='utf-8')


@pytest.mark.parametrize('name', sorted(path.stem for path in SEGMENTATION.glob('*.py')))
def test_layouts_of_mmseg(tmp_path, name):
    cfg = Config.fromfile(SEGMENTATION / f'{name}.py')
    cfg.default_scope = 'mmseg'
    roots = {str(d.config.get('data_root')) for d in DataView(cfg).datasets}
    if len(roots) == 1:
        set_data_root(cfg, str(tmp_path))
    else:
        pytest.skip('several roots')
    data = DataView(cfg)
    for dataset in data.datasets:
        for folder in dataset.folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        if dataset.ann_file is not None:
            dataset.ann_file.parent.mkdir(parents=True, exist_ok=True)
            dataset.ann_file.touch()
        write_segmentation_miniature(dataset)
    check_data(cfg)
    for path in tmp_path.rglob('*'):
        if path.is_file() and path.parent.name == 'sub':
            path.unlink()
    if any(d.ann_file is not None for d in data.datasets):
        with pytest.raises(DataError, match='image-missing'):
            check_data(cfg)
    else:
        check_data(cfg)


def det_config(tmp_path: Path, kind: str, **options) -> Config:
    dataset = dict(type=kind, data_root=f'{tmp_path}/', pipeline=[dict(type='LoadImageFromFile')], **options)
    return Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=dataset)))


def coco_content(classes, **image) -> dict:
    images = [dict(id=i + 1, width=WIDTH, height=HEIGHT, file_name=f'{i}.jpg') for i in range(2)]
    for i, record in enumerate(images):
        record.update({key: value.format(i) for key, value in image.items()})
    annotations = [
        dict(id=i + 1, image_id=i % 2 + 1, category_id=i + 1, bbox=[5, 5, 20, 20], area=400, iscrowd=0,
             segmentation=[[5, 5, 25, 5, 25, 25, 5, 25]])
        for i in range(len(classes))
    ]  # fmt: skip
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(classes)]
    return dict(images=images, annotations=annotations, categories=categories)


COCO_CLASSES = [
    'CocoDataset', 'CityscapesDataset', 'DeepFashionDataset', 'iSAIDDataset', 'ADE20KInstanceDataset',
    'Objects365V1Dataset', 'Objects365V2Dataset', 'LVISV05Dataset', 'LVISV1Dataset',
]  # fmt: skip


@pytest.mark.parametrize('kind', COCO_CLASSES)
def test_layouts_of_coco(tmp_path, kind):
    cfg = det_config(tmp_path, kind, ann_file='train.json', data_prefix=dict(img='images/'))
    (dataset,) = DataView(cfg).datasets
    image, names = {}, '{}.jpg'
    if kind == 'LVISV1Dataset':
        image, names = dict(coco_url='http://images.cocodataset.org/train2017/{}.jpg'), 'train2017/{}.jpg'
    elif kind == 'Objects365V2Dataset':
        image, names = dict(file_name='images/v1/patch8/{}.jpg'), 'patch8/{}.jpg'
    (tmp_path / 'train.json').write_text(json.dumps(coco_content(dataset.cls.METAINFO['classes'], **image)))
    for i in range(2):
        write_image(tmp_path / 'images' / names.format(i), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    allow = ['layout-unsupported'] if kind.startswith('LVIS') else []  # its package may be absent
    check_data(cfg, allow=allow)
    (tmp_path / 'images' / names.format(1)).unlink()
    with pytest.raises(DataError, match='image-missing'):
        check_data(cfg, allow=allow)


def voc(classes: list[str], size: tuple[int, int] = (WIDTH, HEIGHT)) -> str:
    objects = ''.join(
        f'<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>25</xmax>'
        '<ymax>25</ymax></bndbox></object>'
        for name in classes
    )
    return f'<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{objects}</annotation>'


def write_voc(root: Path, classes: list[str], **options) -> None:
    for i in range(2):
        write_image(root / 'JPEGImages' / f'{i}.jpg', np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
        (root / 'Annotations').mkdir(exist_ok=True)
        (root / 'Annotations' / f'{i}.xml').write_text('\ufeff' + voc(classes, **options), encoding='utf-8')
    (root / 'ImageSets').mkdir(exist_ok=True)
    (root / 'ImageSets' / 'train.txt').write_text('\ufeff0\n1\n', encoding='utf-8')


def test_layout_of_voc(tmp_path):
    options = dict(ann_file='ImageSets/train.txt', data_prefix=dict(sub_data_root=''))
    write_voc(tmp_path, ['cat', 'dog'])
    check_data(det_config(tmp_path, 'VOCDataset', **options))
    with pytest.raises(DataError, match='no object of the classes'):
        check_data(det_config(tmp_path, 'VOCDataset', metainfo=dict(classes=('Cat',)), **options))
    write_voc(tmp_path, ['cat'], size=(HEIGHT, WIDTH))
    with pytest.raises(DataError, match='image-swapped'):
        check_data(det_config(tmp_path, 'VOCDataset', **options))
    (tmp_path / 'Annotations' / '1.xml').unlink()
    with pytest.raises(DataError, match=r'VOCDataset cannot read it \(FileNotFoundError'):
        check_data(det_config(tmp_path, 'VOCDataset', **options))


def test_layout_of_crowdhuman(tmp_path):
    box = dict(tag='person', fbox=[5, 5, 20, 20], hbox=[5, 5, 5, 5], vbox=[5, 5, 10, 10], extra={})
    lines = [json.dumps(dict(ID=f'{i}', gtboxes=[box])) for i in range(2)]
    (tmp_path / 'annotation_train.odgt').write_text('\n'.join(lines))
    for i in range(2):
        write_image(tmp_path / 'Images' / f'{i}.jpg', np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    check_data(
        det_config(tmp_path, 'CrowdHumanDataset', ann_file='annotation_train.odgt', data_prefix=dict(img='Images/'))
    )


def test_layout_of_wider_face(tmp_path):
    for i in range(2):
        write_image(tmp_path / 'WIDER_train' / '0--Parade' / f'{i}.jpg', np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
        path = tmp_path / 'WIDER_train' / 'Annotations' / f'{i}.xml'
        path.parent.mkdir(exist_ok=True)
        path.write_text(voc(['face']).replace('<annotation>', '<annotation><folder>0--Parade</folder>'))
    (tmp_path / 'train.txt').write_text('0\n1\n')
    check_data(det_config(tmp_path, 'WIDERFaceDataset', ann_file='train.txt', data_prefix=dict(img='WIDER_train')))


@pytest.mark.parametrize('kind', ['CocoPanopticDataset', 'ADE20KPanopticDataset'])
def test_layout_of_coco_panoptic(tmp_path, kind):
    classes = DataView(det_config(tmp_path, kind)).datasets[0].cls.METAINFO['classes']
    segments = [dict(id=1, category_id=1, iscrowd=0, bbox=[5, 5, 20, 20], area=400)]
    content = dict(
        images=[dict(id=1, file_name='0.jpg', width=WIDTH, height=HEIGHT)],
        annotations=[dict(image_id=1, file_name='0.png', segments_info=segments)],
        categories=[dict(id=i + 1, name=name, isthing=int(i < 80)) for i, name in enumerate(classes)],
    )
    (tmp_path / 'panoptic.json').write_text(json.dumps(content))
    write_image(tmp_path / 'images' / '0.jpg', np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    write_image(tmp_path / 'maps' / '0.png', np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    check_data(det_config(tmp_path, kind, ann_file='panoptic.json', data_prefix=dict(img='images/', seg='maps/')))
