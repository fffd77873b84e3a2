"""UperNet with Conv2Former-N on `shapes`, from scratch in minutes on two CPU cores.

The heads have 64 channels instead of 512 and 256, for speed, and GroupNorm instead of SyncBN: a batch is too small
for the statistics of pooled maps of one pixel.
"""

_base_ = ['mmseg::_base_/models/upernet_r50.py', './_base_/shapes_segmentation.py']

width = 64
norm_cfg = dict(type='GN', num_groups=8)
model = dict(
    data_preprocessor=dict(size=(160, 160)),
    pretrained=None,
    # Layer scale 1e-6, as published, keeps the blocks silent for longer than this whole run lasts.
    backbone=dict(_delete_=True, type='Conv2Former', arch='nano', layer_scale_init=1.0),
    decode_head=dict(in_channels=[64, 128, 256, 512], channels=width, norm_cfg=norm_cfg, num_classes=7),
    auxiliary_head=dict(in_channels=256, channels=width, norm_cfg=norm_cfg, num_classes=7),
)
