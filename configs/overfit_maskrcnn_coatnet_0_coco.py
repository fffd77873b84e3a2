_base_ = './_base_/overfit_maskrcnn_coco.py'

model = dict(
    backbone=dict(_delete_=True, type='CoAtNet', arch='0'),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
