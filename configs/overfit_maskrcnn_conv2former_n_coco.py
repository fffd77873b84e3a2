_base_ = './_base_/overfit_maskrcnn_coco.py'

model = dict(
    # Layer scale 1e-6, as published, keeps the blocks silent for longer than this whole run lasts.
    backbone=dict(_delete_=True, type='Conv2Former', arch='nano', layer_scale_init=1.0),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
