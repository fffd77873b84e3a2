_base_ = './maskrcnn_timm_tf_efficientnet_lite0_coco.py'
checkpoint = 'hybrid://timm_tf_efficientnet_lite2_in1k_260'

model = dict(
    backbone=dict(arch='tf_efficientnet_lite2', init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[24, 48, 120, 352]),
)
