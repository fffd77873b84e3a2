"""UperNet on street scenes in minutes, as `proxy_upernet_conv2former_n_ade20k.py`.

Data: CamVid of 480x360 with 11 classes, 367 frames to train on and 101 to validate on, as `images/{train,val}/*.jpg`
and `annotations/{train,val}/*.png`. The network sees frames of 160 pixels in height.
"""

_base_ = './proxy_upernet_conv2former_n_ade20k.py'

dataset = dict(
    _delete_=True,
    type='BaseSegDataset',
    data_root='data/camvid',
    metainfo=dict(
        classes=(
            'sky',
            'building',
            'pole',
            'road',
            'pavement',
            'tree',
            'sign_symbol',
            'fence',
            'car',
            'pedestrian',
            'bicyclist',
        ),
        # That of the published label maps.
        palette=[
            (128, 128, 128),
            (128, 0, 0),
            (192, 192, 128),
            (128, 64, 128),
            (0, 0, 192),
            (128, 128, 0),
            (192, 128, 128),
            (64, 64, 128),
            (64, 0, 128),
            (64, 64, 0),
            (0, 128, 192),
        ],
    ),
    img_suffix='.jpg',
    seg_map_suffix='.png',
)
train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
tta_pipeline = _base_.tta_pipeline
# Class 0 is a class here.
train_pipeline[1] = dict(type='LoadAnnotations')
test_pipeline[2] = dict(type='LoadAnnotations')
tta_pipeline[1]['transforms'][2] = [dict(type='LoadAnnotations')]

model = dict(decode_head=dict(num_classes=11))
train_dataloader = dict(
    dataset=dict(
        **dataset, data_prefix=dict(img_path='images/train', seg_map_path='annotations/train'), pipeline=train_pipeline
    )
)
val_dataloader = dict(
    dataset=dict(
        **dataset, data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'), pipeline=test_pipeline
    )
)
test_dataloader = val_dataloader
