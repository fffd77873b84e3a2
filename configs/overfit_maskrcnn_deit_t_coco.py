_base_ = './_base_/overfit_maskrcnn_coco.py'

model = dict(
    backbone=dict(_delete_=True, type='ViT', arch='tiny'),
    neck=dict(in_channels=[48, 96, 192, 192]),
)
